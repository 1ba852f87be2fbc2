package relay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
)

// bytesOf is what the channel tables of the devices with a prefix take, without the
// records that count them.
func (b *bed) bytesOf(prefix string) (n int) {
	b.store.set(func() {
		for k, r := range b.store.recs {
			if k.Kind == kindChannel && strings.HasPrefix(k.ID, prefix) {
				n += len(r.Value)
			}
		}
	})
	return n
}

// TestJoinIsBoundedInBytes: long lists fill a table as many short ones do, the joiner's
// own and those of the members it names, and the latter hold names of devices alone.
func TestJoinIsBoundedInBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Limits.Channels, o.Limits.ChannelsByJoiner = 600, 100 })
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		var real, invented []string
		for i := range 400 { // of an account that the sender is acquainted with
			id := fmt.Sprintf("v.%d%s", i, strings.Repeat("y", 64))
			b.acc.add(id, allCaps)
			real = append(real, `"`+id+`"`)
		}
		for i := range 600 {
			invented = append(invented, `"`+fmt.Sprintf("%04d", i)+strings.Repeat("x", 246)+`"`)
		}
		join := func(channel uint32, names ...string) string {
			s.must(ccp.TypeJoin, channel, `{"members":[`+strings.Join(names, ",")+`],"relay":true}`)
			settle()
			return s.errors()
		}
		check(t, "acquainted", join(9, real[0]), "") // before names that do not exist use up the day's new contacts
		errors := ""
		for ch := range uint32(8) {
			errors += join(10+ch, append(invented, real[0])...)
		}
		if n := b.bytesOf("s.1/"); errors == "" || n > 600*entryBytes || n < 300*entryBytes {
			t.Errorf("own table: errors %q, %d KiB", errors, n>>10)
		}
		if n := b.bytesOf("v."); n == 0 || n > 9*entryBytes {
			t.Errorf("%d KiB of invented names in another's table", n>>10)
		}
		for ch := range uint32(8) { // what it gives up is free again
			s.must(ccp.TypeLeave, 10+ch, `{}`)
			settle()
		}
		s.takeControls()
		for ch := range uint32(8) {
			check(t, "join", join(100+ch, real...), "")
		}
		for _, id := range []string{"v.0yy", "v.1yy", "v.399"} {
			if n := b.bytesOf(id); n > 100*entryBytes || n < 50*entryBytes {
				t.Errorf("%d KiB of one joiner in the table of %s", n>>10, id)
			}
		}
		// A list that grows is counted anew, one that shrinks makes room.
		for ch := range uint32(8) {
			check(t, "join", join(100+ch, real...), "")
		}
		check(t, "small lists", join(200, real[0]), "")
		errors = ""
		for ch := range uint32(8) {
			errors += join(100+ch, invented...)
		}
		if n := b.bytesOf("s.1/"); errors == "" || n > 600*entryBytes {
			t.Errorf("own table grown: errors %q, %d KiB", errors, n>>10)
		}
	})
}
