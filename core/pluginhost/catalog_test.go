package pluginhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

const platform = runtime.GOOS + "/" + runtime.GOARCH

// says is a Describer for files that are no programs.
func says(d ...Described) Describer {
	return func(context.Context, *os.File) ([]Described, error) { return d, nil }
}

func pt(needs ...transport.Need) Described {
	return Described{Kind: sdk.Transport, Name: "pt", Version: "1.0.0", Protocols: []int{1}, Needs: needs}
}

// pluginFolder holds commucat-transport-pt, in the list.
func pluginFolder(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "commucat-transport-pt")
	put(t, file, "the plugin", 0o755)
	if _, err := Add(t.Context(), file, AddOptions{Describe: says(pt())}); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func put(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, []byte(content), mode), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	dir, file := pluginFolder(t)
	b, err := NewCatalog(filepath.Join(dir, "absent"), dir).Open(sdk.Transport, "pt")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Path() != file || b.Version != "1.0.0" || b.Profile != "closed" {
		t.Errorf("%+v", b.Found)
	}
	// What was opened stays what it is, whatever lies under the name.
	put(t, file+".new", "another", 0o755)
	must(t, os.Rename(file+".new", file))
	if err := b.Check(); err != nil {
		t.Errorf("the open descriptor: %v", err)
	}
}

// TestRefused: each refusal is one line that says what to do.
func TestRefused(t *testing.T) {
	root := os.Geteuid() == 0
	tests := []struct {
		name string
		do   func(t *testing.T, dir, file string)
		want string // FILE and DIR stand for the paths
	}{
		{"changed by a byte", func(t *testing.T, _, file string) { put(t, file, "the plugim", 0o755) },
			"transport pt: FILE is not the file that was added; reinstall it, or run 'commucat plugin add FILE' if the change is meant"},
		{"grown", func(t *testing.T, _, file string) { put(t, file, "the plugin ", 0o755) }, "is not the file that was added"},
		{"a link", func(t *testing.T, dir, file string) {
			must(t, os.Rename(file, filepath.Join(dir, "elsewhere")))
			must(t, os.Symlink("elsewhere", file))
		}, "FILE: is a symbolic link; put the file itself there"},
		{"writable for all", func(t *testing.T, _, file string) { must(t, os.Chmod(file, 0o757)) }, "FILE: others may write to it (mode 0757); run 'chmod go-w FILE'"},
		{"writable for the group", func(t *testing.T, _, file string) { must(t, os.Chmod(file, 0o775)) }, "FILE: others may write to it (mode 0775); run 'chmod go-w FILE'"},
		{"folder writable", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o777)) }, "DIR: others may write to it (mode 0777); run 'chmod go-w DIR'"},
		{"list writable", func(t *testing.T, dir, _ string) { must(t, os.Chmod(filepath.Join(dir, LockFile), 0o666)) }, "DIR/plugins.lock: others may write to it (mode 0666)"},
		{"list a link", func(t *testing.T, dir, _ string) {
			must(t, os.Rename(filepath.Join(dir, LockFile), filepath.Join(dir, "l")))
			must(t, os.Symlink("l", filepath.Join(dir, LockFile)))
		}, "DIR/plugins.lock: is a symbolic link"},
		{"list damaged", func(t *testing.T, dir, _ string) { put(t, filepath.Join(dir, LockFile), "{", 0o644) }, "DIR/plugins.lock: no list of plugins"},
		{"gone", func(t *testing.T, _, file string) { must(t, os.Remove(file)) }, "FILE: the file is in the list but not there; reinstall it"},
		{"a folder", func(t *testing.T, _, file string) { must(t, os.Remove(file)); must(t, os.Mkdir(file, 0o755)) }, "FILE: is not a regular file"},
		{"not in the list", func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, LockFile))) },
			"transport pt: FILE is not in the list; run 'commucat plugin add FILE' if it is to be trusted"},
		{"unknown", func(t *testing.T, dir, file string) {
			must(t, os.Remove(filepath.Join(dir, LockFile)))
			must(t, os.Remove(file))
		}, "transport pt: there is no such plugin in DIR"},
		{"another platform", func(t *testing.T, dir, _ string) { relock(t, dir, "linux/", "plan9/") }, "was added for another platform than"},
		{"newer protocol", func(t *testing.T, dir, _ string) { relock(t, dir, `"protocol": 1`, `"protocol": 9`) },
			"transport pt: it speaks plugin protocol 9, this relay 1; install a version of the plugin that fits"},
		{"owned by another", func(t *testing.T, _, file string) {
			if !root {
				t.Skip("needs root")
			}
			must(t, os.Chown(file, 4711, 4711))
		}, "FILE: belongs to user 4711, who could change it; run 'chown root FILE'"},
		{"folder owned by another", func(t *testing.T, dir, _ string) {
			if !root {
				t.Skip("needs root")
			}
			must(t, os.Chown(dir, 4711, 4711))
		}, "DIR: belongs to user 4711"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := pluginFolder(t)
			tt.do(t, dir, file)
			want := strings.NewReplacer("FILE", file, "DIR", dir).Replace(tt.want)
			b, err := NewCatalog(dir).Open(sdk.Transport, "pt")
			if err == nil {
				b.Close()
				t.Fatal("opened")
			}
			var r *Refusal
			if !errors.As(err, &r) || !errors.Is(err, sdk.Denied) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

func relock(t *testing.T, dir, from, to string) {
	t.Helper()
	name := filepath.Join(dir, LockFile)
	b, err := os.ReadFile(name)
	must(t, err)
	changed := strings.Replace(string(b), from, to, 1)
	if changed == string(b) {
		t.Fatalf("no %q in %s", from, b)
	}
	put(t, name, changed, 0o644)
}

func TestFirstFolderCounts(t *testing.T) {
	first, file := pluginFolder(t)
	second, _ := pluginFolder(t)
	c := NewCatalog(first, second)
	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Folder != first {
		t.Errorf("%+v, %v", list, err)
	}
	// A broken first folder hides nothing: it is named.
	put(t, file, "changed", 0o755)
	if b, err := c.Open(sdk.Transport, "pt"); err == nil {
		b.Close()
		t.Error("the second folder stood in for the first")
	}
	must(t, os.Chmod(first, 0o777))
	if list, err := c.List(); err == nil || len(list) != 1 || list[0].Folder != second {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestVerify(t *testing.T) {
	dir, file := pluginFolder(t)
	put(t, filepath.Join(dir, "commucat-ledger-spy"), "unlisted", 0o755)
	put(t, filepath.Join(dir, "commucat"), "the program itself", 0o755)
	verdicts, err := NewCatalog(dir).Verify()
	if err != nil || len(verdicts) != 2 || verdicts[0].Err != nil || verdicts[1].Err == nil || verdicts[1].Name != "spy" {
		t.Errorf("%+v, %v", verdicts, err)
	}
	b, err := os.ReadFile(file)
	must(t, err)
	b[3] ^= 1
	put(t, file, string(b), 0o755)
	verdicts, err = NewCatalog(dir).Verify()
	if err != nil || verdicts[0].Err == nil {
		t.Errorf("after a change of one bit: %+v, %v", verdicts, err)
	}
}

func TestAdd(t *testing.T) {
	dir, file := pluginFolder(t)
	c := NewCatalog(dir)
	entry := func() Found {
		t.Helper()
		list, err := c.List()
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	// Again after a change, with modes that must be tightened.
	before := entry().SHA256[platform]
	put(t, file, "version two", 0o777)
	must(t, os.Chmod(dir, 0o777))
	d := pt(transport.Need{Kind: transport.TCPPort}, transport.Need{Kind: transport.Program, Value: "tor"})
	d.Version = "2.0.0"
	if _, err := Add(t.Context(), file, AddOptions{Describe: says(d), User: "tor-user"}); err != nil {
		t.Fatal(err)
	}
	e := entry()
	if e.Version != "2.0.0" || e.SHA256[platform] == before || e.Profile != "program" || e.User != "tor-user" || strings.Join(e.Needs, " ") != "program:tor tcp-port" {
		t.Errorf("%+v", e)
	}
	if b, err := c.Open(sdk.Transport, "pt"); err != nil {
		t.Error(err)
	} else {
		b.Close()
	}
	// From elsewhere: copied under its proper name, the user stays.
	from := filepath.Join(t.TempDir(), "download")
	put(t, from, "version three", 0o600)
	added, err := Add(t.Context(), from, AddOptions{Describe: says(d), Folder: dir})
	if err != nil || len(added) != 1 || added[0].Path() != file || added[0].User != "tor-user" {
		t.Fatalf("%+v, %v", added, err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "version three" {
		t.Errorf("%q, %v", b, err)
	}
	// What is gone leaves the list with the next change.
	other := filepath.Join(dir, "commucat-ledger-tlog")
	put(t, other, "a ledger", 0o755)
	must(t, os.Remove(file))
	if _, err := Add(t.Context(), other, AddOptions{Describe: says(Described{Kind: sdk.Ledger, Name: "tlog", Version: "1", Protocols: []int{1, 7}})}); err != nil {
		t.Fatal(err)
	}
	if e := entry(); e.Name != "tlog" || e.Profile != "outbound" || e.Protocol != 1 {
		t.Errorf("%+v", e)
	}
}

func TestAddRefuses(t *testing.T) {
	fails := func(context.Context, *os.File) ([]Described, error) { return nil, errors.New("no plugin at all") }
	future, odd, strange := pt(), pt(), pt()
	future.Protocols = []int{5, 6}
	odd.Name = "PT"
	strange.Needs = []transport.Need{{Kind: "tun"}}
	for name, tt := range map[string]struct {
		describe Describer
		want     string
	}{
		"no plugin":   {fails, "does not describe itself as a plugin: no plugin at all"},
		"empty":       {says(), "holds no plugin"},
		"protocol":    {says(future), "speaks plugin protocol [5 6], this relay 1"},
		"name":        {says(odd), `"PT" is no name of a plugin`},
		"need":        {says(strange), `it needs "tun", which this version does not know`},
		"not a file":  {says(pt()), "is no program"},
		"not there":   {says(pt()), "cannot be opened"},
		"for the all": {says(pt()), "is a folder for everybody"},
		"script":      {says(pt()), "is a script"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "commucat-transport-pt")
			put(t, file, "x", 0o755)
			switch name {
			case "not a file":
				file = dir
			case "not there":
				file += "-absent"
			case "script":
				put(t, file, "#!/bin/sh\n", 0o755)
			case "for the all":
				must(t, os.Chmod(dir, 0o777|os.ModeSticky))
			}
			_, err := Add(t.Context(), file, AddOptions{Describe: tt.describe, Folder: dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, LockFile)); err == nil {
				t.Error("a list was written")
			}
		})
	}
}
