package syslog

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"

	"github.com/commucat/commucat/sdk/ledger"
)

// facilities are the numbers of RFC 5424 section 6.2.1, table 1.
var facilities = map[string]int{
	"auth": 4, "authpriv": 10, "daemon": 3,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// severityNotice: normal but significant (table 2).
const severityNotice = 5

// structuredID names our structured data. The number is the one that RFC 5612 sets
// aside for documentation: names without @ are the IANA's, and we have no number.
const structuredID = "commucat@32473"

// form is what all messages have in common.
type form struct {
	priority  int
	host, app string
}

// append writes one record:
//
//	<PRI>1 TIME HOST APP PID ACTION [commucat@32473 seq="…" digest="…" prev="…" hash="…"] BOM metadata
//
// framed by its length (RFC 5425 section 4.3).
func (f form) append(b []byte, r ledger.Record) []byte {
	m := make([]byte, 0, 400+len(r.Metadata))
	m = strconv.AppendInt(append(m, '<'), int64(f.priority), 10)
	m = append(m, ">1 "...)
	m = r.Time.UTC().AppendFormat(m, "2006-01-02T15:04:05.000000Z07:00")
	m = append(append(append(m, ' '), f.host...), ' ')
	m = append(append(m, f.app...), ' ')
	m = strconv.AppendInt(m, int64(os.Getpid()), 10)
	m = append(append(m, ' '), action(r.Metadata)...)
	m = strconv.AppendUint(append(m, " ["+structuredID+` seq="`...), r.Seq, 10)
	m = hex.AppendEncode(append(m, `" digest="`...), r.Digest[:])
	m = hex.AppendEncode(append(m, `" prev="`...), r.Prev[:])
	m = hex.AppendEncode(append(m, `" hash="`...), r.Hash[:])
	m = append(append(m, "\"] \xef\xbb\xbf"...), r.Metadata...)
	b = strconv.AppendInt(b, int64(len(m)), 10)
	return append(append(b, ' '), m...)
}

// action is the MSGID: what happened, or - where the record does not say it in the
// form that syslog wants.
func action(metadata []byte) string {
	var m struct{ Action string }
	if json.Unmarshal(metadata, &m) != nil || m.Action == "" || len(m.Action) > 32 {
		return "-"
	}
	for i := range len(m.Action) {
		if c := m.Action[i]; c < 33 || c > 126 {
			return "-"
		}
	}
	return m.Action
}
