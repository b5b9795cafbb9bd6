// Checks dashboards against Grafana's schema, as its Foundation SDK generates it: a field that Grafana does not know is an
// error, and so is a value that it does not allow.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	failed := false
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
	fmt.Printf("%d dashboards keep to Grafana's schema\n", len(os.Args)-1)
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var found dashboard.Dashboard
	// Where nothing is wrong, the SDK returns an empty list of errors.
	if err := found.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
		return err
	}
	if err := found.Validate(); err != nil && err.Error() != "" {
		return err
	}
	return nil
}
