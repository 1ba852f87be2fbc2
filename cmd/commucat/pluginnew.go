package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/cmd/commucat/scaffold"
)

func (a *app) pluginNewCommand() *cobra.Command {
	var o scaffold.Options
	c := &cobra.Command{
		Use:   "new transport|storage|ledger NAME [--dir DIR] [--module PATH] [--source DIR]",
		Short: "Write the module of a new plugin, which passes its conformance suite as it is",
		Args:  exactly(2, "kind and name of the plugin"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Kind, o.Name = args[0], args[1]
			if !slices.Contains(scaffold.Kinds(), o.Kind) {
				return usageError{fmt.Errorf("%q is no kind of plugin: there are %s", o.Kind, strings.Join(scaffold.Kinds(), ", "))}
			}
			if o.Dir == "" {
				o.Dir = o.Name
			}
			if o.Source == "" {
				o.Source = checkout()
			}
			if err := scaffold.Write(o); err != nil {
				return err
			}
			if o.Source != "" {
				a.say("go.mod uses the SDK in %s", o.Source)
			}
			if err := scaffold.Tidy(c.Context(), o.Dir); err != nil {
				return err
			}
			if a.json {
				return a.emit(struct {
					Dir    string `json:"dir"`
					Source string `json:"source,omitempty"`
				}{o.Dir, o.Source})
			}
			_, err := fmt.Fprintf(a.out, "%s is written; try it: cd %s && go test ./...\n", o.Dir, o.Dir)
			return err
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "folder of the module (default: NAME)")
	c.Flags().StringVar(&o.Path, "module", "", "path of the module")
	c.Flags().StringVar(&o.Source, "source", "", "checkout of CommuCat whose SDK is used (default: the one around this folder or this program)")
	return c
}

// checkout is where the SDK lies: around the working folder, or around this program.
func checkout() string {
	here, _ := os.Getwd() // without one the program's folder decides
	program, err := os.Executable()
	if err == nil {
		program, _ = filepath.EvalSymlinks(program)
	}
	return scaffold.Checkout(here, filepath.Dir(program))
}
