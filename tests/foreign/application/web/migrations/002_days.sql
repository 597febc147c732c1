-- Written by the nightly digest.
CREATE TABLE days (day date PRIMARY KEY, entries integer NOT NULL, words integer NOT NULL);
