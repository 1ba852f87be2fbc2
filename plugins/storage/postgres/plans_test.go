package postgres

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/storage"
)

// plan is what the server says of a query that it has run; the blocks are those of all
// the steps below as well.
type plan struct {
	Plan struct {
		Hit  int `json:"Shared Hit Blocks"`
		Read int `json:"Shared Read Blocks"`
	}
	Time float64 `json:"Execution Time"`
}

// TestPlans: each query reads as many blocks as its answer needs, however long the queue is
// and however many records there are. COMMUCAT_SOAK=1 takes a million of each.
func TestPlans(t *testing.T) {
	t.Parallel()
	n, blocks := 20_000, 150
	if os.Getenv("COMMUCAT_SOAK") != "" {
		n, blocks = 1_000_000, 300 // a tree is a step higher
	}
	s := pgserver.Start(t)
	st, err := storage.Open(t.Context(), Plugin(), nil, map[string]any{"address": []any{s.Address()}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(t.Context())
	conn := connect(t, s, "commucat", "commucat")
	now := time.Now().UnixMicro()
	later := now + time.Hour.Microseconds()
	for _, fill := range []string{
		// One long queue of which few rows are over, at its end, and n/10 others, most of them empty.
		"INSERT INTO queue (name, last, messages, bytes) SELECT convert_to('q' || lpad(i::text, 8, '0'), 'UTF8'), $1::bigint + $2::bigint, 0, 0 FROM generate_series(0, $2::bigint / 10) AS i WHERE $3::bigint > 0",
		"INSERT INTO message SELECT no, $1::bigint + i, gen_random_uuid(), CASE WHEN i > $2::bigint - 20 THEN $1::bigint - 1 ELSE $3::bigint + i END, 'x' FROM queue, generate_series(1, $2::bigint) AS i WHERE name = 'q00000000'",
		"INSERT INTO message SELECT no, $1::bigint + i, gen_random_uuid(), $3::bigint, 'x' FROM queue, generate_series(1, 2) AS i WHERE no % 100 = 7 AND $2::bigint > 0",
		"INSERT INTO mark SELECT name, 'value' FROM queue WHERE $1::bigint > 0 AND $2::bigint > 0 AND $3::bigint > 0",
		"INSERT INTO record SELECT 'kind-' || i % 3, convert_to(lpad(i::text, 8, '0'), 'UTF8'), i, CASE WHEN i % 1000 = 0 THEN $1::bigint - 1 WHEN i % 2 = 0 THEN $3::bigint END, 'value' FROM generate_series(1, $2::bigint) AS i",
	} {
		if _, err := conn.Exec(t.Context(), fill, now, n, later); err != nil {
			t.Fatalf("%s: %v", fill, err)
		}
	}
	exec(t, connect(t, s, "postgres", "commucat"), "ANALYZE queue, message, mark, record")
	var no, first int64
	var id [16]byte
	if err := conn.QueryRow(t.Context(), "SELECT q.no, m.position, m.id FROM queue AS q JOIN message AS m ON m.queue = q.no WHERE q.name = 'q00000000' ORDER BY position LIMIT 1").Scan(&no, &first, &id); err != nil {
		t.Fatal(err)
	}
	long := []byte("q00000000")
	names := [][]byte{long, []byte("q00000006"), []byte("q00000106")}
	keys, ids := []string{"kind-1", "kind-2"}, [][]byte{[]byte("00000001"), []byte("00000002")}
	for _, q := range []struct {
		name, text string
		args       []any
	}{
		{"read", readRows, []any{long, first + int64(n)/2, now, 100, 1 << 20}},
		{"find", findRows, []any{[][]byte{long}, [][16]byte{id}, []int32{0}, now}},
		{"over quota", expiredRows, []any{no, now}},
		{"take", takeQueues, []any{names, []int64{1, 1, 1}, []int64{1, 1, 1}, 0}},
		{"lock", lockQueues, []any{names}},
		{"done", deleteRanges, []any{[]int64{no}, []int64{first}, []int64{first + 9}, []int64{first + 9}}},
		{"depths", depthsOf, []any{names}},
		{"expired queues", expiredQueues, []any{now, 100}},
		{"expired", deleteExpired, []any{[]int64{no}, now, 100}},
		{"marks", marksOf, []any{names}},
		{"put marks", putMarks, []any{names, names}},
		{"drop marks", dropMarks, []any{names}},
		{"get", getRecords, []any{keys, ids, now}},
		{"versions", readVersions, []any{keys, ids, now}},
		{"list", listRecords, []any{"kind-1", []byte("00000500"), []byte(""), nil, now, 100}},
		{"put", putRecords, []any{keys, ids, []*int64{nil, nil}, ids}},
		{"drop", dropRecords, []any{keys, ids}},
		{"purge records", purgeRecords, []any{now, 20}},
		{"kinds", kindNames, []any{"", 100}},
		{"mark names", markNames, []any{[]byte("q00000500"), 100}},
	} {
		t.Run(q.name, func(t *testing.T) {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(t.Context()) }()
			// As a connection of the store has it.
			for k, v := range planning {
				if _, err := tx.Exec(t.Context(), "SELECT set_config($1, $2, true)", k, v); err != nil {
					t.Fatal(err)
				}
			}
			var text []byte
			if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+q.text, slices.Concat([]any{pgx.QueryExecModeCacheDescribe}, q.args)...).Scan(&text); err != nil {
				t.Fatal(err)
			}
			var p []plan
			if err := json.Unmarshal(text, &p); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d blocks, %.2f ms", p[0].Plan.Hit+p[0].Plan.Read, p[0].Time)
			if got := p[0].Plan.Hit + p[0].Plan.Read; got > blocks {
				t.Errorf("%d blocks, more than %d:\n%s", got, blocks, text)
			}
		})
	}
}
