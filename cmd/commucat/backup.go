package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/backup"
	"github.com/commucat/commucat/core/server"
)

func (a *app) backupCommand() *cobra.Command {
	return group("backup", "Encrypted archives of the data folder",
		a.backupKeyCommand(), a.backupCreateCommand(), a.backupVerifyCommand(), a.backupRestoreCommand())
}

func (a *app) backupKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key pair for backups; the private half goes into FILE, the public one is printed",
		Long: "Make a key pair for backups. Whoever has FILE can read the archives: keep it away from\n" +
			"the relay. The public half, one line, is what 'backup create --recipients' wants in a file.",
		Args: exactly(1, "the file of the private key"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			text := fmt.Sprintf("# public key: %s\n%s\n", k.Recipient(), k)
			if err := newFile(args[0], func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, k.Recipient())
			return err
		},
	}
}

// newFile makes a file that is not there yet, whole or not at all.
func newFile(name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func (a *app) backupCreateCommand() *cobra.Command {
	var (
		f          relayFlags
		recipients []string
		keys       string
	)
	c := &cobra.Command{
		Use:   "create FILE --recipients FILE [--keys none|only|with] [--data DIR] [--config FILE]",
		Short: "Archive a relay's data folder, encrypted to public keys",
		Long: "Archive a relay's data folder, encrypted (age) to the public keys in a file. A relay that\n" +
			"runs goes on meanwhile: everything acknowledged before the command began is kept.\n\n" +
			"The folder keys/ is not in it: who has it beside the data can read what waits for\n" +
			"devices. Make an archive of it alone with --keys only, and keep the two apart.",
		Args: exactly(1, "the file of the archive"),
		RunE: func(c *cobra.Command, args []string) error {
			part := backup.Keys(keys)
			if !slices.Contains([]backup.Keys{backup.WithoutKeys, backup.OnlyKeys, backup.WithKeys}, part) {
				return usageError{fmt.Errorf("--keys %s: none, only or with", keys)}
			}
			if len(recipients) == 0 {
				return usageError{errors.New("to whom? Name a file of public keys with --recipients ('commucat backup key' makes a pair)")}
			}
			to, err := readKeys(recipients, age.ParseRecipients)
			if err != nil {
				return err
			}
			cfg, env, data, err := f.load()
			if err != nil {
				return err
			}
			b := archiving{
				app: a, opt: a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler)), to: to, part: part, file: args[0],
				socket: adminSocket(cfg, data),
			}
			return b.create(c.Context())
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&recipients, "recipients", nil, "file of public keys (age1…), one a line; may be repeated")
	c.Flags().StringVar(&keys, "keys", string(backup.WithoutKeys), "the relay's keys: none, only or with")
	return c
}

// readKeys reads keys from files; what is in them never comes into an error.
func readKeys[K any](files []string, parse func(io.Reader) ([]K, error)) ([]K, error) {
	var out []K
	for _, name := range files {
		b, err := readSmall(name)
		if err != nil {
			return nil, err
		}
		k, err := parse(strings.NewReader(string(b)))
		if err != nil {
			return nil, fmt.Errorf("%s holds no keys of the right kind, one a line", name)
		}
		out = append(out, k...)
	}
	return out, nil
}

// backedUp is the result of the three commands.
type backedUp struct {
	File  string `json:"file"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	backup.Info
}

func (a *app) tellBackup(what, file string, info backup.Info, m backup.Manifest) error {
	if a.json {
		return a.emit(backedUp{file, len(m.Files), m.Bytes(), info})
	}
	_, err := fmt.Fprintf(a.out, "%s: %d files, %d bytes, of %s, keys: %s, storage: %s\n", what, len(m.Files), m.Bytes(), info.Created.Format(time.RFC3339), info.Keys, info.Storage)
	return err
}

// identityFlag adds --identity.
func identityFlag(c *cobra.Command, to *[]string) {
	c.Flags().StringArrayVar(to, "identity", nil, "file of a private key (AGE-SECRET-KEY-…); may be repeated")
}

// openBackup opens an archive and the keys to it.
func openBackup(file string, identities []string) (*os.File, []age.Identity, error) {
	if len(identities) == 0 {
		return nil, nil, usageError{errors.New("name the file of the private key with --identity")}
	}
	by, err := readKeys(identities, age.ParseIdentities)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(file)
	return f, by, err
}

func (a *app) backupVerifyCommand() *cobra.Command {
	var identities []string
	c := &cobra.Command{
		Use:   "verify FILE --identity FILE",
		Short: "Read a whole archive and check every digest",
		Args:  exactly(1, "the file of the archive"),
		RunE: func(c *cobra.Command, args []string) error {
			f, by, err := openBackup(args[0], identities)
			if err != nil {
				return err
			}
			defer f.Close()
			var (
				info backup.Info
				m    backup.Manifest
			)
			if err := a.reading("checking", f, func(r io.Reader) (err error) {
				info, m, err = backup.Verify(c.Context(), r, by)
				return err
			}); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.tellBackup("whole", args[0], info, m)
		},
	}
	identityFlag(c, &identities)
	return c
}

func (a *app) backupRestoreCommand() *cobra.Command {
	var (
		identities []string
		data       string
	)
	c := &cobra.Command{
		Use:   "restore FILE --identity FILE --data DIR",
		Short: "Make a data folder from an archive",
		Long: "Make a data folder from an archive. DIR must be empty or absent; an archive made with\n" +
			"--keys only may also go into a folder that has no keys/ yet. Nothing is left behind of an\n" +
			"archive that is damaged.",
		Args: exactly(1, "the file of the archive"),
		RunE: func(c *cobra.Command, args []string) error {
			if data == "" {
				return usageError{errors.New("name the folder to make with --data")}
			}
			f, by, err := openBackup(args[0], identities)
			if err != nil {
				return err
			}
			defer f.Close()
			var (
				info backup.Info
				m    backup.Manifest
			)
			if err := a.reading("restoring", f, func(r io.Reader) (err error) {
				info, m, err = backup.Restore(c.Context(), r, by, data, server.Layout)
				return err
			}); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if info.Keys == backup.WithoutKeys {
				a.say("now the keys: commucat backup restore --data %s … with the archive made by --keys only", shellWord(data))
			}
			return a.tellBackup("restored", args[0], info, m)
		},
	}
	identityFlag(c, &identities)
	c.Flags().StringVar(&data, "data", "", "folder to make")
	return c
}
