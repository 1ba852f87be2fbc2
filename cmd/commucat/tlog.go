package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/sdk/ledger/tiles"
)

func (a *app) proveCommand() *cobra.Command {
	var f relayFlags
	c := &cobra.Command{
		Use:   "prove NUMBER [--data DIR] [--config FILE]",
		Short: "Print the proof that the transparency log holds a record, with the record",
		Long: "Print the proof that the transparency log (ledger tlog) holds a record. The proof is C2SP\n" +
			"tlog-proof text; the record follows on standard error, or in the JSON. Both work while the relay runs.",
		Args: exactly(1, "the record's number"),
		RunE: func(_ *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[0], 10, 62)
			if err != nil || seq == 0 {
				return usageError{fmt.Errorf("%q is no record: they are numbered from 1", args[0])}
			}
			opt, err := a.auditOptions(&f)
			if err != nil {
				return err
			}
			l, err := server.OpenTransparencyLog(opt)
			if err != nil {
				return err
			}
			return a.prove(l.Reader, seq)
		},
	}
	f.add(c)
	return c
}

func (a *app) prove(r *tiles.Reader, seq uint64) error {
	p, err := r.Prove(int64(seq - 1))
	if err != nil {
		return err
	}
	records, err := r.Records(seq-1, 1)
	if err != nil {
		return err
	}
	line := string(records[0].AppendLine(nil))
	if a.json {
		return a.emit(struct {
			Record string `json:"record"`
			Proof  string `json:"proof"`
		}{line, string(p.Marshal())})
	}
	a.say("%s", line)
	_, err = a.out.Write(p.Marshal())
	return err
}

func (a *app) checkProofCommand() *cobra.Command {
	var key string
	var witnesses []string
	c := &cobra.Command{
		Use:   "check --key KEY PROOF RECORD",
		Short: "Check a proof; needs no relay, only the log's public key",
		Args:  exactly(2, "the file of the proof and the file of the record"),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usageError{fmt.Errorf("whose log? Give its key (the text in key.pub) with --key")}
			}
			proof, err := readSmall(args[0])
			if err != nil {
				return err
			}
			p, err := tiles.ParseProof(proof)
			if err != nil {
				return err
			}
			record, err := readSmall(args[1])
			if err != nil {
				return err
			}
			if n := len(record); n > 0 && record[n-1] == '\n' {
				record = record[:n-1]
			}
			head, err := p.Verify(record, key, witnesses...)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "record %d of %d is in %s\n", p.Index+1, head.Size, head.Origin)
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "the log's public key, NAME+ID+KEY")
	c.Flags().StringSliceVar(&witnesses, "witness", nil, "keys of witnesses that may have cosigned")
	return c
}

// readSmall reads a file that a person names: proofs and records are small.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > 1<<20 || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no proof and no record", name)
	}
	return os.ReadFile(name)
}

func (a *app) checkpointCommand() *cobra.Command {
	var (
		f               relayFlags
		since, cosigned string
	)
	c := &cobra.Command{
		Use:   "checkpoint [--since FILE] [--cosigned FILE]",
		Short: "Print the transparency log's signed tree head, or compare it with an earlier one",
		Args:  exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			opt, err := a.auditOptions(&f)
			if err != nil {
				return err
			}
			l, err := server.OpenTransparencyLog(opt)
			if err != nil {
				return err
			}
			switch {
			case cosigned != "":
				return a.keepCosigned(l, cosigned)
			case since != "":
				return a.compare(l, since)
			}
			return a.printCheckpoint(l)
		},
	}
	f.add(c)
	c.Flags().StringVar(&since, "since", "", "check that the log still contains the tree of this earlier checkpoint")
	c.Flags().StringVar(&cosigned, "cosigned", "", "keep this checkpoint, which witnesses have cosigned, beside the log")
	return c
}

func (a *app) printCheckpoint(l server.TransparencyLog) error {
	if a.json {
		h := l.Head()
		return a.emit(struct {
			Origin     string `json:"origin"`
			Key        string `json:"key"`
			Size       int64  `json:"size"`
			Root       []byte `json:"root"`
			Checkpoint string `json:"checkpoint"`
		}{h.Origin, l.Key, h.Size, h.Root[:], string(l.Signed())})
	}
	_, err := a.out.Write(l.Signed())
	return err
}

// earlier reads a checkpoint that was kept elsewhere, and checks that the log still
// contains its tree.
func (a *app) earlier(l server.TransparencyLog, file string) (signed []byte, c tiles.Checkpoint, by []string, err error) {
	if signed, err = readSmall(file); err != nil {
		return nil, c, nil, err
	}
	if c, by, err = tiles.ParseCheckpoint(signed, l.Key, l.Witnesses...); err != nil {
		return nil, c, nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err = l.Consistent(c); err != nil {
		err = fmt.Errorf("ledger tlog, in %s: %w", l.Dir, err)
	}
	return signed, c, by, err
}

func (a *app) compare(l server.TransparencyLog, file string) error {
	_, c, _, err := a.earlier(l, file)
	if err != nil {
		return err
	}
	proof, err := l.Consistent(c)
	if err != nil {
		return err
	}
	if a.json {
		hashes := make([][]byte, len(proof))
		for i := range proof {
			hashes[i] = proof[i][:]
		}
		return a.emit(struct {
			From  int64    `json:"from"`
			To    int64    `json:"to"`
			Proof [][]byte `json:"proof"`
		}{c.Size, l.Head().Size, hashes})
	}
	_, err = fmt.Fprintf(a.out, "the log of %d records contains that of %d\n", l.Head().Size, c.Size)
	return err
}

// cosignedFile holds the newest checkpoint with cosignatures, beside the log's own.
const cosignedFile = "checkpoint.cosigned"

func (a *app) keepCosigned(l server.TransparencyLog, file string) error {
	signed, c, by, err := a.earlier(l, file)
	if err != nil {
		return err
	}
	if len(by) == 0 {
		return fmt.Errorf("%s carries no cosignature of a witness that ledger.tlog.witnesses names", file)
	}
	name := filepath.Join(l.Dir, cosignedFile)
	if err := os.WriteFile(name+".new", signed, 0o644); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%d records, cosigned by %s\n", c.Size, strings.Join(by, ", "))
	return err
}
