package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tandem/region"
)

// node makes one of the commands that are a site's process. Settings come from the file, then TANDEM_ variables, then flags.
func (a *app) node(key, use, example string, run func(context.Context, region.Config, *slog.Logger) error) *cobra.Command {
	var file, data, listen, level, limits string
	var lease time.Duration
	var withParent bool
	c := a.command(key, use, cobra.NoArgs, example, nil)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := region.Load(file)
		if err != nil {
			return err
		}
		overlay := func(into *string, flag, key, value string) {
			if env := os.Getenv(key); env != "" {
				*into = env
			}
			if c.Flags().Changed(flag) {
				*into = value
			}
		}
		overlay(&config.DataDir, "data", "TANDEM_DATA", data)
		overlay(&config.Listen, "listen", "TANDEM_LISTEN", listen)
		overlay(&config.LogLevel, "log-level", "TANDEM_LOG_LEVEL", level)
		overlay(&config.FailoverLimits, "failover-limits", "TANDEM_FAILOVER_LIMITS", limits)
		if c.Flags().Changed("lease") {
			config.LeaseTTL = lease
		}
		if use == "serve" {
			err = config.Validate()
		} else {
			err = config.ValidateDirectory()
		}
		if err != nil {
			return err
		}
		ctx := c.Context()
		if withParent {
			if use == "directory" { // a signal to the whole group is the node's to answer: the directory leaves after it
				ctx = context.WithoutCancel(ctx)
			}
			ctx = region.EndWithParent(ctx)
		}
		logger := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: config.Level()}))
		err = run(ctx, config, logger)
		if ctx.Err() != nil {
			return nil // ended as asked
		}
		return err
	}
	c.Flags().StringVar(&file, "config", "", a.say("flag.config"))
	c.Flags().StringVar(&data, "data", "", a.say("flag.data"))
	c.Flags().StringVar(&listen, "listen", "", a.say("flag.listen"))
	c.Flags().StringVar(&level, "log-level", "info", a.say("flag.loglevel"))
	if use == "serve" {
		c.Flags().StringVar(&limits, "failover-limits", "azure", a.say("flag.limits"))
		c.Flags().DurationVar(&lease, "lease", 3*time.Second, a.say("flag.lease"))
	}
	c.Flags().BoolVar(&withParent, "end-with-parent", false, "")
	_ = c.Flags().MarkHidden("end-with-parent")
	_ = c.MarkFlagRequired("config")
	return c
}

func (a *app) serve() *cobra.Command {
	return a.node("serve", "serve", `  tandem serve --config /etc/tandem/westus2.json`, region.Run)
}

func (a *app) witness() *cobra.Command {
	return a.node("witness", "witness", `  tandem witness --config /etc/tandem/witness.json`, region.RunWitness)
}

// directory is the directory member of a node; serve starts it.
func (a *app) directory() *cobra.Command {
	c := a.node("directory", "directory", `  tandem directory --config /etc/tandem/westus2.json`, region.RunDirectory)
	c.Hidden = true
	return c
}
