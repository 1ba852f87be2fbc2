package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Snapshot describes a copy of a running relay's data: what an archive of it is made
// from. Whoever asked has the answer's connection open; when that ends the copy is removed.
//
// Until ReleaseSnapshot is called, for a minute after the answer at most, no ledger is given
// records either, so that what ledgers keep in the rest of the data folder stands still.
type Snapshot struct {
	ID string `json:"id"`
	// Folders stand in the place of folders of the data folder.
	Folders []SnapshotFolder `json:"folders"`
	// Stage is an empty folder in the data folder, for who makes the archive.
	Stage string `json:"stage"`
	// Contained says whether accounts and messages are in it.
	Contained bool `json:"contained"`
	// Busy are ledgers that were taking records nevertheless.
	Busy []string `json:"busy,omitempty"`
}

// SnapshotFolder is a folder at Dir that stands for Name, which is relative to the data
// folder and has slashes.
type SnapshotFolder struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

// SnapshotRequest asks for a snapshot with a part of the data: keys "none", "only" or "with".
type SnapshotRequest struct {
	Keys string `json:"keys"`
}

// Held is a snapshot together with what ends it. Release may be called more than once, End
// ends everything; both only once the caller is done.
type Held struct {
	Snapshot
	Release func() error
	End     func()
}

// ErrSnapshot answers who asks while there is one.
var ErrSnapshot error = problem(409, "backup_running", "another backup of this relay is being made; wait until it has ended")

// held is the one snapshot that there may be.
type held struct {
	mu      sync.Mutex
	running bool
	over    chan struct{} // closed when one that has ended is removed; nil if none has
	now     *Held
}

// begin says whether there may be one now. One that is just being removed is waited for.
func (h *held) begin(ctx context.Context) bool {
	for {
		h.mu.Lock()
		over, free := h.over, !h.running
		if free {
			h.running = true
		}
		h.mu.Unlock()
		if over == nil {
			return free
		}
		select {
		case <-over:
		case <-ctx.Done():
			return false
		}
	}
}

func (h *held) set(now *Held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = now
	h.running = now != nil
}

// end ends the snapshot. There is no other one before it is removed: it lies in the data
// folder that the next archive is made of, and may have keys that are not for that one.
func (h *held) end() {
	over := make(chan struct{})
	h.mu.Lock()
	now := h.now
	h.now, h.over = nil, over
	h.mu.Unlock()
	now.End()
	h.mu.Lock()
	h.running, h.over = false, nil
	h.mu.Unlock()
	close(over)
}

func (h *held) get(id string) *Held {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil || h.now.ID != id {
		return nil
	}
	return h.now
}

// snapshot answers with one line and keeps the snapshot while the client stays.
func (a *Admin) snapshot(w http.ResponseWriter, r *http.Request) {
	s, err := a.makeSnapshot(w, r)
	if err != nil {
		writeProblem(w, problemOf(r.Context(), a.opt.Log, err))
		return
	}
	defer a.held.end()
	b, err := json.Marshal(s.Snapshot)
	if err != nil {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if _, err := w.Write(append(b, '\n')); err != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	<-r.Context().Done()
}

func (a *Admin) makeSnapshot(w http.ResponseWriter, r *http.Request) (*Held, error) {
	if a.opt.Snapshot == nil {
		return nil, a.absent()
	}
	in := SnapshotRequest{Keys: "none"}
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	// To its end, so that the server sees when the client goes; it may stay long.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if in.Keys != "none" && in.Keys != "only" && in.Keys != "with" {
		return nil, problem(400, "bad_request", "keys must be none, only or with")
	}
	if !a.held.begin(r.Context()) {
		return nil, ErrSnapshot
	}
	s, err := a.opt.Snapshot(r.Context(), in.Keys)
	if err != nil {
		a.held.set(nil)
		return nil, problem(409, "no_snapshot", err.Error())
	}
	a.held.set(&s)
	return &s, nil
}

func (a *Admin) releaseSnapshot(r *http.Request, _ http.ResponseWriter) (any, error) {
	s := a.held.get(r.PathValue("id"))
	if s == nil {
		return nil, problem(404, "not_found", "there is no such snapshot any more")
	}
	if err := s.Release(); err != nil {
		return nil, problem(409, "released", err.Error())
	}
	return object{"id": s.ID, "status": "released"}, nil
}

// Snapshot has a running relay make a snapshot, which lives until end is called.
func (c *Client) Snapshot(ctx context.Context, keys string) (out Snapshot, end func() error, err error) {
	b, err := json.Marshal(SnapshotRequest{keys})
	if err != nil {
		return out, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://localhost/v1/snapshots", bytes.NewReader(b))
	if err != nil {
		return out, nil, err
	}
	long := http.Client{Transport: c.http.Transport} // a database takes its time
	res, err := long.Do(r)                           //nolint:bodyclose // end closes it
	if err != nil {
		return out, nil, c.dialError(err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		b, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
		if err != nil {
			return out, nil, err
		}
		p := &Problem{Status: res.StatusCode, Title: res.Status}
		_ = json.Unmarshal(b, p) // what is no problem object keeps its status
		return out, nil, p
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReply)).Decode(&out); err != nil {
		return out, nil, errors.Join(errors.New("the relay ended before its snapshot was made"), res.Body.Close())
	}
	return out, func() error { cancel(); return res.Body.Close() }, nil
}

// ReleaseSnapshot lets the ledgers of a snapshot go on.
func (c *Client) ReleaseSnapshot(ctx context.Context, id string) error {
	return c.Do(ctx, "POST", "/v1/snapshots/"+url.PathEscape(id)+"/release", nil, nil)
}
