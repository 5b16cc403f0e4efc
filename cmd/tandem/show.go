package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"tandem"
	"tandem/client"
	"tandem/dev"
)

// connect finds the installation: flags, then TANDEM_ variables, then the environment file of a `tandem dev` here.
func (a *app) connect() (*client.Client, error) {
	file, fileErr := dev.ReadEnvironment(a.envFile)
	get := func(flag, key string) string {
		if flag != "" {
			return flag
		}
		if value := os.Getenv(key); value != "" {
			return value
		}
		return file[key]
	}
	t := client.Target{
		CA: get(a.ca, "TANDEM_CA"), Token: get("", "TANDEM_CLIENT_SECRET"), Subscription: get("", "TANDEM_SUBSCRIPTION"),
		ResourceGroup: get("", "TANDEM_RESOURCE_GROUP"), Tenant: get("", "TANDEM_TENANT"), Location: get("", "TANDEM_LOCATION"),
	}
	t.URLs = list(get(a.url, "TANDEM_ARM_URL"))
	if a.url == "" {
		t.DataURLs = list(get("", "TANDEM_HTTPS_URL"))
	}
	if t.ResourceGroup == "" {
		t.ResourceGroup = dev.Group
	}
	if len(t.URLs) == 0 && fileErr != nil {
		return nil, &tandem.Error{Op: "find Tandem", Kind: tandem.NotFound, Err: fmt.Errorf("no %s, and TANDEM_ARM_URL is not set", a.envFile),
			Hint: a.say("connect.hint")}
	}
	return client.New(t)
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// print shows raw as JSON, or the table.
func (a *app) print(raw any, table func(w io.Writer)) error {
	if a.output == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(raw)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes one line of a table.
func row(w io.Writer, cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

// waiting says on standard error what takes longer than a second, and how long it has taken. Call stop when it is over.
func (a *app) waiting(text string) (stop func()) {
	done, ended, began := make(chan struct{}), make(chan struct{}), time.Now()
	go func() {
		defer close(ended)
		terminal := isTerminal(a.err)
		every := time.Second
		for shown := false; ; shown = true {
			select {
			case <-done:
				if shown && terminal {
					fmt.Fprint(a.err, "\r\033[K")
				}
				return
			case <-time.After(every):
			}
			if terminal {
				fmt.Fprintf(a.err, "\r\033[K%s … %ds", text, int(time.Since(began).Seconds()))
			} else {
				fmt.Fprintf(a.err, "%s … %ds\n", text, int(time.Since(began).Seconds()))
				every = 5 * time.Second
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks for the name to be typed, on a terminal; elsewhere the flag is needed.
func (a *app) confirm(question, name string, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(a.in) {
		return errUsage{errors.New(a.say("confirm.flag", name))}
	}
	fmt.Fprintf(a.err, "%s\n%s ", question, a.say("confirm.type", name))
	typed, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(typed) != name {
		return &tandem.Error{Op: "confirm", Kind: tandem.Precondition, Err: errors.New(a.say("confirm.differs"))}
	}
	return nil
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func took(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "-"
	}
	return to.Sub(from).Round(time.Millisecond).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
