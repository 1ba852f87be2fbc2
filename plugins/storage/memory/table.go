package memory

import "time"

// table is a bounded map whose entries end at a time. When it is full it drops
// an ended entry, else of a few at random the one that ends first. Not safe for
// concurrent use.
type table[V any] struct {
	rows  map[string]row[V]
	limit int
	// dropped is told of each entry that leaves without having been removed.
	dropped func(key string, v V)
}

type row[V any] struct {
	value V
	ends  time.Time
}

func newTable[V any](limit int, dropped func(string, V)) table[V] {
	return table[V]{rows: make(map[string]row[V]), limit: limit, dropped: dropped}
}

// get answers a live entry.
func (t *table[V]) get(now time.Time, key string) (V, bool) {
	r, ok := t.rows[key]
	if !ok || !now.Before(r.ends) {
		var none V
		return none, false
	}
	return r.value, true
}

func (t *table[V]) put(now time.Time, key string, v V, ends time.Time) {
	if _, there := t.rows[key]; !there && len(t.rows) >= t.limit {
		t.evict(now)
	}
	t.rows[key] = row[V]{v, ends}
}

// evict drops one entry.
func (t *table[V]) evict(now time.Time) bool {
	const sample = 8
	var victim string
	var ends time.Time
	n := 0
	for key, r := range t.rows { // Go starts at a random place
		if n == 0 || r.ends.Before(ends) {
			victim, ends = key, r.ends
		}
		if n++; n == sample || !now.Before(r.ends) {
			break
		}
	}
	if n == 0 {
		return false
	}
	v := t.rows[victim].value
	delete(t.rows, victim)
	if t.dropped != nil {
		t.dropped(victim, v)
	}
	return true
}
