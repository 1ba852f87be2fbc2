package server

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// answering is a transport that takes its time.
type answering struct {
	name  string
	after time.Duration
}

func (a answering) Name() string { return a.name }

func (a answering) Invite(ctx context.Context, host string, _ transport.Guest) (transport.Endpoint, error) {
	select {
	case <-time.After(a.after):
		return transport.Endpoint{Transport: a.name, Host: host, Port: 443}, nil
	case <-ctx.Done():
		return transport.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Err: ctx.Err()}
	}
}

// TestInvitationsBesideEachOther: each transport has the whole time, and one that hangs
// costs the link its own place alone.
func TestInvitationsBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler)}
		began := time.Now()
		got := s.invitations(t.Context(), []inviter{
			answering{"first", 2 * time.Second}, answering{"hangs", time.Hour}, answering{"last", 2 * time.Second},
		}, "relay.example", transport.Guest{})
		if took := time.Since(began); took != inviteLimit {
			t.Errorf("it took %v", took)
		}
		if len(got) != 2 || got[0].Transport != "first" || got[1].Transport != "last" {
			t.Errorf("%v", got)
		}
	})
}
