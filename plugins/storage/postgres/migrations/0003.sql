-- Up to where a queue is done with: below are no rows, only the index's entries of rows
-- that were deleted and that nothing has cleared away yet. Who begins above reads none.
ALTER TABLE queue ADD COLUMN done bigint NOT NULL DEFAULT 0;
