package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// help shows a command's help, or one of the topics that belong to all commands.
func (a *app) help() *cobra.Command {
	c := a.command("help", "help [COMMAND | exit-codes]", cobra.ArbitraryArgs, `  tandem help hub failover
  tandem help exit-codes`, func(c *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] == "exit-codes" {
			_, err := fmt.Fprintln(a.out, a.say("help.exitcodes"))
			return err
		}
		of, rest, err := c.Root().Find(args)
		if err != nil || of == nil || len(rest) > 0 {
			return errUsage{fmt.Errorf("%s", a.say("help.unknown", strings.Join(args, " ")))}
		}
		of.InitDefaultHelpFlag()
		return of.Help()
	})
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		of, _, err := c.Root().Find(args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		if len(args) == 0 {
			names = append(names, "exit-codes")
		}
		for _, child := range of.Commands() {
			if child.IsAvailableCommand() {
				names = append(names, child.Name())
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}
