-- Whose accounts were deleted before 0041 kept it: the audit knows.
INSERT INTO gone_accounts
SELECT DISTINCT ON (subject) subject, before ->> 'user', at FROM audit
WHERE action = 'delete_account' AND before ->> 'user' IS NOT NULL
    AND NOT EXISTS (SELECT FROM accounts WHERE accounts.id = audit.subject)
ORDER BY subject, number DESC
ON CONFLICT (id) DO NOTHING;
