CREATE TABLE queue (
	name     bytea  PRIMARY KEY,
	no       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
	last     bigint NOT NULL,
	messages bigint NOT NULL,
	bytes    bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE message (
	queue    bigint NOT NULL,
	position bigint NOT NULL,
	id       uuid   NOT NULL,
	expires  bigint NOT NULL,
	payload  bytea  NOT NULL,
	PRIMARY KEY (queue, position)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);

ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE INDEX message_id ON message (queue, id);

CREATE INDEX message_expires ON message (expires);

CREATE TABLE mark (
	key   bytea PRIMARY KEY,
	value bytea NOT NULL
) WITH (fillfactor = 70);

CREATE SEQUENCE version;

CREATE TABLE record (
	kind    text COLLATE "C" NOT NULL,
	id      bytea  NOT NULL,
	version bigint NOT NULL,
	expires bigint,
	value   bytea  NOT NULL,
	PRIMARY KEY (kind, id)
) WITH (fillfactor = 80);

CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
