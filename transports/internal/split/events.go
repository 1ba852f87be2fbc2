package split

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strconv"
)

// maxLine bounds a line of an event stream.
const maxLine = 32 << 10

// errEvent is an event stream that is not ours.
var errEvent = errors.New("split: malformed event")

// event is one event. data is valid until the next one.
type event struct {
	name   string
	offset uint64
	data   []byte
}

// decoder reads the events that appendEvent writes, as far as any event stream
// may spell them: comments, unknown fields, CR LF, no space after the colon.
type decoder struct {
	r    *bufio.Reader
	data []byte
}

func newDecoder(r io.Reader) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, maxLine)}
}

// next returns the next event; io.EOF between two events.
func (d *decoder) next() (event, error) {
	var e event
	d.data = d.data[:0]
	begun, hasID := false, false
	for {
		line, err := d.r.ReadSlice('\n')
		switch {
		case err == io.EOF && len(line) == 0 && !begun:
			return event{}, io.EOF
		case err == io.EOF:
			return event{}, io.ErrUnexpectedEOF
		case errors.Is(err, bufio.ErrBufferFull):
			return event{}, errEvent
		case err != nil:
			return event{}, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if begun && hasID {
				e.data = d.data
				return e, nil
			}
			begun = false
			continue
		}
		if line[0] == ':' {
			continue
		}
		begun = true
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.name = string(value)
		case "id":
			if e.offset, err = strconv.ParseUint(string(value), 10, 64); err != nil {
				return event{}, errEvent
			}
			hasID = true
		case "data":
			if len(d.data)+len(value) > maxLine {
				return event{}, errEvent
			}
			if d.data, err = base64.StdEncoding.AppendDecode(d.data, value); err != nil {
				return event{}, errEvent
			}
		}
	}
}

// body is a request's body that net/http knows to be in memory.
func body(p []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(p)) }
