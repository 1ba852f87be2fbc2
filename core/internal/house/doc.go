// Package house holds the rules of the source tree and nothing else: which package
// may import which, and what no file may contain. Its tests read every Go file with
// go/parser and check it against the tables in rules_test.go.
package house
