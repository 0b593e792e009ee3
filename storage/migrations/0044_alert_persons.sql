-- Whose acts an alert is about, besides the owner of the account: who closes it must be somebody else.
ALTER TABLE alerts ADD COLUMN persons text[] NOT NULL DEFAULT '{}';
-- Of those that are open the text names the last of them.
UPDATE alerts SET persons = ARRAY[substring(text FROM '(?:^| of )user ([^ :]+)')]
WHERE acknowledged_at = 0 AND kind IN ('large_order', 'unusual_hour', 'position_flips', 'cancel_burst')
    AND text ~ '(^| of )user [^ :]+';
