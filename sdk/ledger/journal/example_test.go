package journal_test

import (
	"fmt"
	"os"
	"time"

	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "records-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	j, err := journal.Open(journal.Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	next, err := ledger.Next(j.Head(), at, [32]byte{}, []byte(`{"action":"start"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(j.Append([]ledger.Record{next})) // it is on stable storage now
	fmt.Println(j.Append([]ledger.Record{next})) // a repeated one is no mistake
	all, err := j.Read(0, 10)
	fmt.Println(len(all), err)
	// Output:
	// <nil>
	// <nil>
	// 1 <nil>
}
