package duplex

import (
	"net/http"
	"testing"
)

type writer struct{ bytes int }

func (w *writer) Header() http.Header         { return nil }
func (w *writer) WriteHeader(int)             {}
func (w *writer) Write(p []byte) (int, error) { w.bytes += len(p); return len(p), nil }
func (w *writer) FlushError() error           { return nil }

type body struct{}

func (b *body) Read(p []byte) (int, error) { return len(p), nil }
func (b *body) Close() error               { return nil }

func TestSteadyPathDoesNotAllocate(t *testing.T) {
	w := new(writer)
	c := New("test", w, &http.Request{Body: new(body)})
	p := make([]byte, 512)
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := c.Read(p); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
