package plugintest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/commucat/commucat/sdk/storage"
)

const victimVariable = "COMMUCAT_STORAGE_VICTIM"

// StorageVictim is called first in the TestMain of a store whose options say
// Victim. In the child process that is to be killed it does not return: it appends,
// reports on stdout what has been acknowledged, and deletes a part of it.
func StorageVictim(open StorageOpen) {
	dir := os.Getenv(victimVariable)
	if dir == "" {
		return
	}
	s, err := open(context.Background(), dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if err := victimRound(s, i); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
}

const (
	victimQueues = 7
	victimBatch  = 50
)

func victimRows(first, i int) []storage.Append {
	rows := make([]storage.Append, victimBatch)
	for j := range rows {
		n := first + i*victimBatch + j
		rows[j] = message(fmt.Sprintf("queue %d", n%victimQueues), n)
	}
	return rows
}

// victimRound appends a batch and reports each row: "ack QUEUE NUMBER POSITION". Of
// every third batch it then deletes the rows, having said so.
func victimRound(s storage.Store, i int) error {
	first := 0
	if _, err := fmt.Sscan(os.Getenv(victimVariable+"_FIRST"), &first); err != nil {
		return err
	}
	rows := victimRows(first, i)
	out, err := s.Queues.Append(context.Background(), epoch, storage.Batch{Rows: rows, Marks: []storage.Mark{{Key: "round", Value: fmt.Append(nil, i)}}})
	if err != nil {
		return err
	}
	var b strings.Builder
	var done []storage.Done
	for j, r := range out {
		if r.Err != nil || r.Duplicate {
			return fmt.Errorf("row %d: %+v", j, r)
		}
		n := first + i*victimBatch + j
		verb := "ack"
		if i%3 == 2 {
			verb = "done"
			done = append(done, storage.Done{Queue: rows[j].Queue, Ranges: [][2]uint64{{r.Position, r.Position}}})
		}
		fmt.Fprintf(&b, "%s %d %d %d\n", verb, n%victimQueues, n, r.Position)
	}
	if s.Directory != nil {
		err := s.Directory.Commit(context.Background(), epoch, []storage.Write{{Key: key("round", fmt.Sprint(first+i)), Value: []byte("x")}})
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "record 0 %d 0\n", first+i)
	}
	if _, err := os.Stdout.WriteString(b.String()); err != nil {
		return err
	}
	return s.Queues.Done(context.Background(), done)
}

// queuesKilled kills a child process in the middle of its appends, several times
// over the same folder, and looks for what it had acknowledged.
func queuesKilled(t T, k *storageKit) {
	if !k.o.Victim {
		t.Skip("no victim: the store forgets, or its TestMain does not call StorageVictim")
	}
	dir := folder(t)
	acked := map[int][]int{} // queue to numbers, in order
	last := map[int]uint64{}
	done := map[int]bool{}
	for round := range 5 {
		first := round * 1_000_000
		lines := k.kill(t, dir, first, 40+37*round)
		s := k.at(t, dir)
		for _, l := range lines {
			if l.verb == "record" {
				if s.Directory != nil && get(t, s, epoch, key("round", fmt.Sprint(l.number))).Version == 0 {
					t.Fatalf("record %d was acknowledged and is gone", l.number)
				}
				continue
			}
			if l.position <= last[l.queue] {
				t.Fatalf("queue %d: position %d after %d", l.queue, l.position, last[l.queue])
			}
			last[l.queue] = l.position
			acked[l.queue] = append(acked[l.queue], l.number)
			done[l.number] = l.verb == "done"
		}
		for q, numbers := range acked {
			got := all(t, s, epoch, fmt.Sprintf("queue %d", q))
			at := 0
			for _, n := range numbers {
				want := message(fmt.Sprintf("queue %d", q), n)
				found := at
				for found < len(got) && got[found].ID != want.ID {
					found++
				}
				switch {
				case found < len(got):
					if string(got[found].Payload) != string(want.Payload) {
						t.Fatalf("row %d came back changed", n)
					}
					at = found + 1
				case !done[n]:
					t.Fatalf("row %d of queue %d was acknowledged and is gone, or stands before an older one", n, q)
				}
			}
			// Positions that an unacknowledged batch used count as well.
			if len(got) > 0 {
				last[q] = max(last[q], got[len(got)-1].Position)
			}
		}
		k.close(t, s)
	}
}

type victimLine struct {
	verb          string
	queue, number int
	position      uint64
}

// kill runs a victim until it has reported so many lines, kills it, and gives all
// whole lines.
func (k *storageKit) kill(t T, dir string, first, after int) []victimLine {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), victimVariable+"="+dir, fmt.Sprintf("%s_FIRST=%d", victimVariable, first))
	c.Env = append(c.Env, k.o.Variables...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var lines []victimLine
	r := bufio.NewReader(out)
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			break // a last line without its end was never reported
		}
		var l victimLine
		if _, err := fmt.Sscan(text, &l.verb, &l.queue, &l.number, &l.position); err != nil {
			_ = c.Process.Kill()
			_ = c.Wait()
			t.Fatalf("victim: %s", text)
		}
		if lines = append(lines, l); len(lines) == after*10 {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Wait(); err == nil {
		t.Fatal("the victim ended by itself")
	}
	return lines
}
