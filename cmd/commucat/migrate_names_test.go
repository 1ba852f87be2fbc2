package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/reference"
)

// TestImportNamesTables: the report names the tables as the reference's database does.
func TestImportNamesTables(t *testing.T) {
	var out bytes.Buffer
	rep := &reference.Report{Tables: []*reference.Table{{Name: "relay-queue", Rows: 1, Left: 1, Reasons: []*reference.Reason{{Text: "why", Rows: 1}}}}}
	if err := (&app{streams: streams{out: &out}}).showImport(rep); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Count(s, "relay_queue") != 2 || strings.Contains(s, "relay-queue") {
		t.Error(s)
	}
}
