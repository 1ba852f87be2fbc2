package plugintest_test

import (
	"context"
	"fmt"

	"github.com/commucat/commucat/sdk/plugintest"
)

// A program without go test runs cases and reports them; "commucat plugin check" does.
func ExampleRun() {
	report := func(r plugintest.Result) { fmt.Println(r.Name, r.Failed) }
	ok := plugintest.Run(context.Background(), "hello", report, func(t plugintest.T) {
		t.Run("greets", func(t plugintest.T) {})
		t.Run("leaves", func(t plugintest.T) { t.Error("it stayed") })
	})
	fmt.Println(ok)
	// Output:
	// hello/greets false
	// hello/leaves true
	// hello true
	// false
}
