-- A session whose second factor was shown by a recovery code: it may enrol another one, with the password.
ALTER TABLE panel_sessions ADD COLUMN recovered boolean NOT NULL DEFAULT false;
