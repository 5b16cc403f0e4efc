// Command tandem is the whole of Tandem in one binary: a region's node, the witness, an installation for trying out, and
// the commands that operate any of them through the public doors. There is a file per command.
//
// Exit codes: 0 done; 1 failed; 2 wrong usage; 4 there is no such thing; 5 not possible now, the same command may succeed
// later; 6 something is in the way (a conflict, a limit, a missing consent); 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tandem"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 4
	exitNotNow      = 5
	exitInTheWay    = 6
	exitInterrupted = 130
)

// app is one run of the command: where it reads and writes, and in which language.
type app struct {
	words    words
	in       *os.File
	out, err io.Writer

	output           string // table or json
	url, ca, envFile string
}

// defaultEnvFile is where a tandem dev without flags keeps its environment.
const defaultEnvFile = ".tandem/env"

// errUsage marks errors of the command line itself.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

func run(args []string, in *os.File, out, errs io.Writer) int {
	a := &app{words: chooseWords(args, os.Getenv), in: in, out: out, err: errs}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	fmt.Fprintf(errs, "tandem: %s\n", a.explain(err))
	return exitCode(err)
}

// explain is an error for people: what happened, then what to do about it.
func (a *app) explain(err error) string {
	text := err.Error()
	if hint := tandem.HintOf(err); hint != "" {
		text = strings.Replace(text, " ("+hint+")", "", 1) + "\n  → " + hint
	}
	var usage errUsage
	if errors.As(err, &usage) {
		text += "\n  → " + a.say("usage.see")
	}
	return text
}

func exitCode(err error) int {
	var usage errUsage
	if errors.As(err, &usage) {
		return exitUsage
	}
	switch kind := tandem.KindOf(err); {
	case kind == tandem.NotFound:
		return exitNotFound
	case kind == tandem.Conflict, kind == tandem.Precondition, kind == tandem.Exists, kind == tandem.Throttled:
		return exitInTheWay
	case kind.Retriable():
		return exitNotNow
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "tandem", Short: a.say("tandem.short"),
		Long: a.say("tandem.long") + "\n\n" + a.say("help.exitcodes"), SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.NoArgs,
		Example:           "  tandem dev\n  tandem device simulate hub-1\n  tandem hub failover hub-1",
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "table", a.say("flag.output"))
	flags.StringVar(&a.url, "url", "", a.say("flag.url"))
	flags.StringVar(&a.ca, "ca", "", a.say("flag.ca"))
	flags.StringVar(&a.envFile, "env", defaultEnvFile, a.say("flag.env"))
	flags.String("lang", "", a.say("flag.lang"))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && a.output != "json" {
			return errUsage{fmt.Errorf("--output %q: table, json", a.output)}
		}
		return nil
	}
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(languages, cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errUsage{err} })
	root.SetUsageTemplate(a.usageTemplate())
	root.SetHelpCommand(a.help())
	root.AddCommand(a.dev(), a.serve(), a.witness(), a.directory(), a.hub(), a.device(), a.region(), a.failover(), a.version(), a.completion())
	root.InitDefaultHelpCmd()
	for _, c := range every(root) {
		c.InitDefaultHelpFlag()
		c.Flags().Lookup("help").Usage = a.say("flag.help")
		if check := c.Args; check != nil {
			c.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return errUsage{err}
				}
				return nil
			}
		}
	}
	return root
}

func every(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, child := range c.Commands() {
		list = append(list, every(child)...)
	}
	return list
}

// command makes a command whose texts are in the catalogue under key.
func (a *app) command(key, use string, args cobra.PositionalArgs, example string, run func(c *cobra.Command, args []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: a.say(key + ".short"), Args: args, Example: example, RunE: run}
	if words := strings.Fields(use); len(words) > 1 && strings.Trim(words[1], "[]") == "HUB" {
		c.ValidArgsFunction = a.completeHubs
	}
	return c
}

// examples are commands, each followed by what it does, in two columns.
func examples(pairs ...string) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		row(w, "  "+pairs[i], "# "+pairs[i+1])
	}
	_ = w.Flush()
	return strings.TrimSuffix(text.String(), "\n")
}

// group makes a command that only has others under it.
func (a *app) group(key, use, example string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: a.say(key + ".short"), Args: cobra.NoArgs, Example: example,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(children...)
	return c
}

func (a *app) usageTemplate() string {
	return `{{if .Runnable}}` + a.say("help.usage") + `
  {{.UseLine}}{{end}}{{if .HasExample}}

` + a.say("help.examples") + `
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

` + a.say("help.commands") + `{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

` + a.say("help.flags") + `
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

` + a.say("help.global") + `
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
}
