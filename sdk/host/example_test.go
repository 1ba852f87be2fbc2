package host_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
)

// Describe asks an open file what it is; Start would run the same descriptor, whatever
// becomes of the name meanwhile.
func ExampleDescribe() {
	dir, err := os.MkdirTemp("", "plugin-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "plugin")
	if out, err := exec.Command("go", "build", "-o", binary, sample).CombinedOutput(); err != nil {
		fmt.Println(err, string(out))
		return
	}
	file, err := os.Open(binary)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	d, err := host.Describe(context.Background(), file)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Plugins[0].Kind == sdk.Transport, d.Plugins[0].Protocols)
	// Output: true [1]
}
