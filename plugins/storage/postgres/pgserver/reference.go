package pgserver

import _ "embed" // of the tables

//go:embed reference.sql
var referenceTables string

// Reference makes the reference server's tables in the public schema of the database
// commucat, runs statements that fill them, and lets the role commucat read them alone.
func (s *Server) Reference(statements string) {
	s.t.Helper()
	s.SQL("commucat", referenceTables+statements+"GRANT SELECT ON ALL TABLES IN SCHEMA public TO commucat;")
}
