CREATE TABLE entries (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL,
  message text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- Counted by the worker.
  words integer,
  -- Of release checks: on no page.
  hidden boolean NOT NULL DEFAULT false
);
CREATE INDEX entries_newest ON entries (created_at DESC) WHERE NOT hidden;
CREATE INDEX entries_uncounted ON entries (created_at) WHERE words IS NULL;
