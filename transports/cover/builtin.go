package cover

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"io/fs"
	"strings"
	"text/template"
)

//go:embed site
var templates embed.FS

// dice draws numbers from a domain, the same each time.
type dice [sha256.Size]byte

func draw(domain, what string) *dice {
	d := dice(sha256.Sum256([]byte("site\x00" + what + "\x00" + strings.ToLower(domain))))
	return &d
}

func (d *dice) n(limit int) int {
	v := int(binary.BigEndian.Uint64(d[:8]) % uint64(limit))
	*d = sha256.Sum256(d[:])
	return v
}

func (d *dice) pick(of ...string) string { return of[d.n(len(of))] }

// builtIn renders the embedded site: a small personal page with a few notes.
// Words, colours and file names are drawn from the domain, so that the bytes
// of one deployment say nothing about another.
func builtIn(domain string) fs.FS {
	if domain == "" {
		domain = "localhost"
	}
	domain = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, domain)
	d := draw(domain, "look")
	page := map[string]string{
		"Domain":  domain,
		"Style":   d.pick("style", "main", "site", "base", "page", "screen") + ".css",
		"Title":   d.pick("Notes", "Notebook", "Odds and ends", "Workbench", "Small things", "Journal", "Field notes", "Scrapbook"),
		"Lead":    d.pick("A few pages about things I am working on.", "Mostly short notes, written for myself.", "Things worth keeping, in no particular order.", "This page is being rearranged. Some notes are below.", "Written now and then, when there is something to write."),
		"Ink":     d.pick("#222", "#2b2b2b", "#1d2733", "#30261e", "#24302a"),
		"Paper":   d.pick("#fff", "#fdfdfb", "#fbfaf7", "#f8fafb", "#fcfcff"),
		"Accent":  d.pick("#0a58a3", "#8a3b12", "#2f6f4f", "#6b3a7d", "#9a1f3c", "#345f7a"),
		"Font":    d.pick("Georgia, serif", "system-ui, sans-serif", "Helvetica, Arial, sans-serif", "Charter, Georgia, serif", "Verdana, sans-serif"),
		"Width":   d.pick("34em", "36em", "38em", "40em", "42em", "44em"),
		"Missing": d.pick("There is nothing here.", "This page does not exist.", "Nothing was found at this address.", "The page may have moved."),
		"Back":    d.pick("Back to the start", "Home", "To the first page"),
	}
	topics := [][3]string{
		{"bread", "Bread", "Five hundred grams of flour, three hundred and fifty of water, ten of salt, a spoon of starter. Fold it four times in the first two hours, leave it in the cold overnight, bake it hot and covered."},
		{"bicycle", "A bicycle", "The rear hub needed new bearings after eleven thousand kilometres. The cones were still good. A drop of thread locker on the rack bolts would have saved an afternoon."},
		{"garden", "Garden", "Beans after the last frost, peas before it. The north bed dries last and is best left for lettuce. Slugs come from the wall, not from the grass."},
		{"radio", "An old radio", "Two capacitors and a dry joint at the tuning coil. It now receives the long wave at night, and the lamp behind the dial has been replaced by a warmer one."},
		{"walks", "Walks", "Along the river to the mill and back over the hill: nine kilometres, two hours and a half with a rest. The lower path floods in March."},
		{"books", "Books", "Read this year: two on bridges, one on tides, and a thick one on the history of paper that could have been half as long and would still have been good."},
		{"clock", "A wall clock", "It loses a minute a week when it is cold. Turning the nut under the pendulum by one line brings back about half a minute a day."},
		{"tea", "Tea", "Water just off the boil for black, much cooler for green. The second infusion of a rolled leaf is usually the better one."},
	}
	for i := len(topics) - 1; i > 0; i-- {
		j := d.n(i + 1)
		topics[i], topics[j] = topics[j], topics[i]
	}
	notes := topics[:3+d.n(3)]
	data := map[string]any{"Notes": notes, "Note": [3]string{}}
	for k, v := range page {
		data[k] = v
	}

	out := memory{}
	add := func(name, from string) {
		out[name] = render(from, data)
	}
	add("index.html", "index.html")
	add("404.html", "404.html")
	add(page["Style"], "style.css")
	add("robots.txt", "robots.txt")
	for _, n := range notes {
		data["Note"] = n
		add(n[0]+".html", "note.html")
	}
	return out
}

// render cannot fail for the embedded templates, which the tests render.
func render(name string, data any) []byte {
	t := template.Must(template.ParseFS(templates, "site/"+name))
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		panic(err)
	}
	return b.Bytes()
}
