package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/storage"
)

// referenceTable is a table of the reference. Its kind is its name with hyphens. Rows
// come in byte order of their keys, which are texts, joined by zero bytes.
type referenceTable struct {
	name string
	// keys are the columns of the primary key. A table without is only counted: what
	// is in it is carried in no case, and some of it is secret.
	keys []string
	// columns are given as JSON as the server writes it.
	columns []string
}

func (t *referenceTable) counted() bool { return len(t.keys) == 0 }

func (t *referenceTable) kind() string { return strings.ReplaceAll(t.name, "_", "-") }

// tables are all that the reference ever made.
func tables() []referenceTable {
	return []referenceTable{
		{"app_user", []string{"user_id"}, []string{"handle", "display_name", "avatar_url", "created_at", "domain"}},
		{"chat_group", []string{"group_id"}, []string{"owner_device", "created_at"}},
		{"device_key_event", []string{"device_id", "event_id"}, []string{"public_key", "recorded_at"}},
		{"device_pairing", nil, nil},
		{"device_pq_keys", nil, nil},
		{"device_rotation_audit", []string{"device_id", "rotation_id"}, []string{"old_public_key", "new_public_key", "applied_at"}},
		{"federated_friend_requests", nil, nil},
		{"federation_outbox", nil, nil},
		{"federation_peer", []string{"domain"}, nil},
		{"federation_peer_status", nil, nil},
		{"friend_requests", []string{"from_user_id", "to_user_id"}, []string{"status"}},
		{"group_member", []string{"group_id", "device_id"}, []string{"role", "joined_at"}},
		{"idempotency", nil, nil},
		{"inbox_offset", nil, nil},
		{"relay_queue", nil, nil}, // its rows are in Queues
		{"remote_user_cache", nil, nil},
		{"server_secret", nil, nil},
		{"session", nil, nil},
		{"user_blob", []string{"user_id", "key"}, []string{"payload"}},
		{"user_device", []string{"user_id", "opaque_id"}, []string{"pubkey", "status", "created_at"}},
	}
}

func tableNamed(name string) *referenceTable {
	all := tables()
	i := slices.IndexFunc(all, func(t referenceTable) bool { return t.name == name || t.kind() == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}

const (
	// maxReference is the longest row that is given, in bytes of JSON.
	maxReference = storage.MaxValue - 4096
	fetchRows    = 64
	listBytes    = 4 << 20
)

// query reads a table: its keys, the length of the rest, and the rest.
func (r *reference) query(t *referenceTable, where string) string {
	var cols []string
	for _, c := range t.columns {
		if r.columns[t.name][c] {
			cols = append(cols, "t."+c)
		}
	}
	json := "'{}'::text"
	if len(cols) > 0 {
		json = "(SELECT row_to_json(x)::text FROM (SELECT " + strings.Join(cols, ", ") + ") AS x)"
	}
	var keys, names, order []string
	for i, k := range t.keys {
		name := fmt.Sprintf("k%d", i)
		keys = append(keys, "t."+k+"::text AS "+name)
		names, order = append(names, name), append(order, name+` COLLATE "C"`)
	}
	list := strings.Join(names, ", ")
	return fmt.Sprintf("SELECT ARRAY[%s], octet_length(j), CASE WHEN octet_length(j) <= %d THEN j END FROM (SELECT %s, %s AS j FROM %s.%s AS t%s) AS s ORDER BY %s",
		list, maxReference, strings.Join(keys, ", "), json, r.schema, t.name, where, strings.Join(order, ", "))
}

// referenceTables implements storage.Directory.
type referenceTables reference

// Get implements storage.Directory.
func (d *referenceTables) Get(ctx context.Context, _ time.Time, keys []storage.Key) ([]storage.Record, error) {
	r := (*reference)(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := r.within(ctx)
	defer cancel()
	out := make([]storage.Record, len(keys))
	for i, k := range keys {
		if err := k.Check(); err != nil {
			return nil, err
		}
		out[i].Key = k
		t := tableNamed(k.Kind)
		parts := strings.Split(k.ID, "\x00")
		if t == nil || r.columns[t.name] == nil || t.counted() || len(parts) != len(t.keys) {
			continue
		}
		args := make([]any, len(parts))
		cond := make([]string, len(parts))
		for j := range parts {
			args[j] = parts[j]
			cond[j] = fmt.Sprintf("t.%s::text = $%d", t.keys[j], j+1)
		}
		rows, err := r.conn.Query(ctx, r.query(t, " WHERE "+strings.Join(cond, " AND ")), args...)
		if err != nil {
			return nil, plain("get", err)
		}
		found, err := r.collect(rows, t)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			out[i] = found[0]
		}
	}
	return out, nil
}

func (r *reference) collect(rows pgx.Rows, t *referenceTable) ([]storage.Record, error) {
	var out []storage.Record
	var key []string
	var size int
	var value *string
	_, err := pgx.ForEachRow(rows, []any{&key, &size, &value}, func() error {
		rec := storage.Record{Key: storage.Key{Kind: t.kind(), ID: strings.Join(key, "\x00")}, Version: r.opened}
		if value != nil {
			rec.Value = []byte(*value)
		} else {
			rec.Value = fmt.Appendf(nil, `{"too_long":%d}`, size)
		}
		out = append(out, rec)
		return nil
	})
	return out, plain("read", err)
}

// List implements storage.Directory. A page may be shorter than it could be; only an
// empty one is the end. IDs are as long as the tables' keys are.
func (d *referenceTables) List(ctx context.Context, _ time.Time, q storage.Range) ([]storage.Record, error) {
	if err := storage.CheckKind(q.Kind); err != nil {
		return nil, err
	}
	r := (*reference)(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	t := tableNamed(q.Kind)
	if t == nil || r.columns[t.name] == nil {
		return nil, nil
	}
	ctx, cancel := r.within(ctx)
	defer cancel()
	if t.counted() {
		return r.count(ctx, t, q)
	}
	c := r.cursors[t.name]
	if c == nil || c.at != q.After {
		var err error
		if c, err = r.declare(ctx, t.name, r.query(t, "")); err != nil {
			return nil, err
		}
	}
	var out []storage.Record
	for bytes := 0; len(out) < q.Limit && bytes < listBytes && !c.ended; {
		rows, err := r.fetch(ctx, c, min(fetchRows, q.Limit-len(out)))
		if err != nil {
			return nil, err
		}
		got, err := r.collect(rows, t)
		if err != nil {
			return nil, err
		}
		c.ended = len(got) == 0
		for i := range got {
			c.at = got[i].ID
			if got[i].ID > q.After && strings.HasPrefix(got[i].ID, q.Prefix) {
				out = append(out, got[i])
				bytes += len(got[i].Value)
			}
		}
	}
	return out, nil
}

// count is the one record of a table that is only counted.
func (r *reference) count(ctx context.Context, t *referenceTable, q storage.Range) ([]storage.Record, error) {
	const id = "rows"
	if q.After >= id || !strings.HasPrefix(id, q.Prefix) {
		return nil, nil
	}
	var n uint64
	if err := r.conn.QueryRow(ctx, "SELECT count(*) FROM "+r.schema+"."+t.name).Scan(&n); err != nil {
		return nil, plain("count", err)
	}
	value, err := json.Marshal(map[string]uint64{"rows": n})
	return []storage.Record{{Key: storage.Key{Kind: t.kind(), ID: id}, Version: r.opened, Value: value}}, err
}

// Commit implements storage.Directory: it does not.
func (d *referenceTables) Commit(context.Context, time.Time, []storage.Write) error { return errSource }

// Purge implements storage.Directory: it does not.
func (d *referenceTables) Purge(context.Context, time.Time, int) (int, error) { return 0, errSource }

// referenceInventory implements storage.Inventory.
type referenceInventory reference

// Kinds names the tables that are there.
func (i *referenceInventory) Kinds(_ context.Context, after string, limit int) ([]string, error) {
	if err := storage.CheckPage(after, limit); err != nil {
		return nil, err
	}
	var out []string
	for _, t := range tables() {
		if i.columns[t.name] != nil && t.kind() > after && len(out) < limit {
			out = append(out, t.kind())
		}
	}
	return out, nil
}

// Marks implements storage.Inventory: the reference has none.
func (i *referenceInventory) Marks(_ context.Context, after string, limit int) ([]string, error) {
	return nil, storage.CheckPage(after, limit)
}
