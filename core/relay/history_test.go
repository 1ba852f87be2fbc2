package relay

import (
	"testing"
	"time"
)

// rounds connects a.1 n times, lets f do what the device does, and cuts the connection.
func (b *bed) rounds(n int, f func(round int, a *peer)) {
	for i := range n {
		a := b.connect("a.1", allCaps, 0)
		settle()
		f(i, a)
		settle()
		a.link.Detach()
		settle()
	}
}

// drained is what a.1 receives, in order, when it takes everything.
func (b *bed) drained() (bodies string, flags []uint8) {
	a := b.connect("a.1", allCaps, 0)
	for range 30 {
		after(time.Second)
		for _, d := range a.take() {
			bodies += string(d.Body) + " "
			flags = append(flags, d.Flags&FlagSentBefore)
			a.done(0, [2]uint64{d.Position, d.Position})
		}
	}
	return bodies, flags
}

// TestOrderIsKeptForADeviceThatLives: a device that takes nothing, because it has no
// room, gets everything in order once it has, however often it connects meanwhile.
func TestOrderIsKeptForADeviceThatLives(t *testing.T) {
	tests := map[string]func(round int, a *peer){
		"its Done covers nothing": func(_ int, a *peer) { a.done(0) },
		"its connections last":    func(int, *peer) { after(outlived) },
		"it says so now and then": func(round int, a *peer) {
			if round == poisonAfter-1 {
				a.done(0)
			}
		},
		"it takes one and then says so": func(round int, a *peer) {
			if round == 0 {
				a.done(a.take()[0].Position)
			}
			a.done(0)
		},
	}
	for name, does := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, nil)
				defer b.stop()
				s := b.connect("s.1", allCaps, 0)
				b.acc.add("a.1", allCaps)
				for _, m := range []string{"1", "2", "3"} {
					s.send("a.1", m)
				}
				settle()
				b.rounds(poisonAfter, does)
				s.send("a.1", "4")
				settle()
				got, flags := b.drained()
				want := "1 2 3 4 "
				if name == "it takes one and then says so" {
					want = "2 3 4 "
				}
				check(t, "order", got, want)
				if n := len(flags); n < 3 || flags[n-1] != 0 || flags[n-2] != FlagSentBefore || flags[n-3] != FlagSentBefore {
					t.Errorf("flags %v", flags)
				}
			})
		})
	}
}

// TestOnlyTheFirstRowIsSuspected: the rows behind the one that crashes its receiver keep
// their order, and so do those that come when it has been moved and crashes it again.
func TestOnlyTheFirstRowIsSuspected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		for _, m := range []string{"poison", "1", "2"} {
			s.send("a.1", m)
		}
		settle()
		got := ""
		// The device takes what comes before the row that crashes it.
		crash := func(_ int, a *peer) {
			for _, d := range a.take() {
				if string(d.Body) == "poison" {
					return
				}
				got += string(d.Body) + " "
				a.done(d.Position)
				settle()
			}
		}
		b.rounds(poisonAfter, crash)
		check(t, "held up", got, "")
		b.rounds(1, crash)
		check(t, "the others", got, "1 2 ")
		s.send("a.1", "3")
		s.send("a.1", "4")
		settle()
		b.rounds(poisonAfter+1, crash)
		check(t, "those behind its new place", got, "1 2 3 4 ")
		last, _ := b.drained()
		check(t, "not lost", last, "poison ")
	})
}
