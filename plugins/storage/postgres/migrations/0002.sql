-- Each history of the database that this storage has written to; see timeline.go.
CREATE TABLE timeline (
	system  text   NOT NULL,
	line    text   NOT NULL,
	floor   bigint NOT NULL,
	checked bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (system, line)
);
