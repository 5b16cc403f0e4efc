package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tandem/client"
	"tandem/dev"
)

// completing bounds what a person waits for after pressing Tab.
const completing = 2 * time.Second

// completeHubs offers the names of the hubs as a command's first argument; nothing when no installation answers.
func (a *app) completeHubs(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) > 0 && strings.Contains(c.Use, "FILE"):
		return nil, cobra.ShellCompDirectiveDefault
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.fromInstallation(c, func(ctx context.Context, t *client.Client) (names []string) {
		hubs, _, err := t.Hubs(ctx)
		if err != nil {
			return nil
		}
		for _, h := range hubs {
			names = append(names, h.Name)
		}
		return names
	})
}

// completeRegions offers the installation's regions with the names that people read.
func (a *app) completeRegions(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.fromInstallation(c, func(ctx context.Context, t *client.Client) (names []string) {
		regions, _, err := t.Regions(ctx)
		if err != nil {
			return nil
		}
		for _, r := range regions {
			names = append(names, r.Name+"\t"+display(r.Name))
		}
		return names
	})
}

func (a *app) fromInstallation(c *cobra.Command, ask func(context.Context, *client.Client) []string) ([]string, cobra.ShellCompDirective) {
	t, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completing)
	defer cancel()
	return ask(ctx, t), cobra.ShellCompDirectiveNoFileComp
}

// completeSites offers what a fault can be done to.
func completeSites(data *string, verb string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		o := dev.Default()
		o.Data = *data
		o = dev.Remembered(o)
		var names []string
		for _, r := range o.Regions {
			names = append(names, string(r)+"\t"+r.Display())
		}
		names = append(names, "witness")
		if verb == "cut" || verb == "join" {
			names = append(names, "link")
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
