package pluginhost

import (
	"bytes"
	"strings"
	"testing"
)

const goodLock = `{
  "layout": 1,
  "plugins": [
    {
      "file": "commucat-transport-pt",
      "kind": "transport",
      "name": "pt",
      "version": "0.1.0",
      "protocol": 1,
      "sha256": {
        "linux/amd64": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      },
      "profile": "program",
      "needs": [
        "outbound",
        "program:obfs4proxy",
        "tcp-port"
      ]
    }
  ]
}
`

func TestParseLock(t *testing.T) {
	l, err := parseLock([]byte(goodLock))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.marshal()
	if err != nil || string(b) != goodLock {
		t.Errorf("written again it is %s, %v", b, err)
	}
	for name, change := range map[string][2]string{
		"layout":   {`"layout": 1`, `"layout": 2`},
		"unknown":  {`"layout": 1`, `"layout": 1, "trust": true`},
		"kind":     {`"kind": "transport"`, `"kind": "carrier"`},
		"name":     {`"name": "pt"`, `"name": "../pt"`},
		"file":     {`"file": "commucat-transport-pt"`, `"file": "../commucat-transport-pt"`},
		"protocol": {`"protocol": 1`, `"protocol": 0`},
		"sum":      {"e3b0c442", "e3b0c4"},
		"no hex":   {"e3b0c442", "x3b0c442"},
		"need":     {`"outbound"`, `"everything"`},
		"program":  {`"program:obfs4proxy"`, `"program:/bin/sh"`},
		"programs": {`"program:obfs4proxy"`, `"program:$command|/bin/sh"`},
		"profile":  {`"profile": "program"`, `"profile": "closed"`},
		"rest":     {"}\n", "}\n{}"},
	} {
		t.Run(name, func(t *testing.T) {
			text := goodLock
			if name == "rest" {
				text += "{}"
			} else if text = strings.Replace(text, change[0], change[1], 1); text == goodLock {
				t.Fatal("nothing was changed")
			}
			if _, err := parseLock([]byte(text)); err == nil {
				t.Error("accepted")
			}
		})
	}
	twice := strings.Replace(goodLock, "    {\n", "    "+goodLock[strings.Index(goodLock, "{\n      \"file"):strings.LastIndex(goodLock, "\n  ]")]+",\n    {\n", 1)
	if _, err := parseLock([]byte(twice)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one plugin twice: %v", err)
	}
}

// FuzzLock: whatever is accepted is written as the same list.
func FuzzLock(f *testing.F) {
	f.Add([]byte(goodLock))
	f.Add([]byte(`{"layout":1,"plugins":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLock(b)
		if err != nil {
			return
		}
		first, err := l.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseLock(first)
		if err != nil {
			t.Fatalf("%v in %s", err, first)
		}
		if second, err := again.marshal(); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s became %s, %v", first, second, err)
		}
	})
}
