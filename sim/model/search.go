package model

import (
	"fmt"
	"strings"
)

// A Result says what a search saw. Broken is nil when every promise held in every state within the bounds.
type Result struct {
	States int            // distinct states reached
	Depth  int            // steps to the farthest of them
	Taken  map[string]int // how often each action led somewhere
	Broken *Broken
}

// Broken is a promise that does not hold, with the shortest interleaving that shows it.
type Broken struct {
	Promise string
	Steps   []string
}

// String is the promise and the steps, one per line.
func (b *Broken) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "broken: %s (%d steps)", b.Promise, len(b.Steps))
	for i, step := range b.Steps {
		fmt.Fprintf(&out, "\n%3d  %s", i+1, step)
	}
	return out.String()
}

// edge is how a state was first reached.
type edge struct {
	from   int32
	action uint8
	region Region
}

// Search visits every state within the bounds, breadth first, and stops at the first broken one of the promises.
// limit is the number of states after which it panics, so that a model that has grown is noticed.
func Search(c Config, promises []Promise, limit int) Result {
	if c.Epochs > maxEpochs || c.Appends > 6 {
		panic("model: bounds beyond what a state can hold")
	}
	seen := map[State]struct{}{start(): {}}
	edges := []edge{{}}
	level, first := []State{start()}, 0
	result := Result{States: 1, Taken: make(map[string]int)}
	taken := make([]int, len(actions))
	for {
		var next []State
		for i := range level {
			for a := range actions {
				for r := A; r <= B; r++ {
					after, ok := actions[a].do(&c, level[i], r)
					if !ok {
						continue
					}
					taken[a]++
					after.forget(&c)
					e := edge{int32(first + i), uint8(a), r}
					if p := brokenStep(&c, promises, &level[i], &after, e); p != "" {
						result.Broken = &Broken{p, trace(&c, append(edges, e), len(edges))}
						return result
					}
					if _, ok := seen[after]; ok {
						continue
					}
					seen[after] = struct{}{}
					edges = append(edges, e)
					next = append(next, after)
					if p := brokenState(&c, promises, &after); p != "" {
						result.Broken = &Broken{p, trace(&c, edges, len(edges)-1)}
						return result
					}
					if len(edges) > limit {
						panic(fmt.Sprintf("model: more than %d states", limit))
					}
				}
			}
		}
		first += len(level)
		result.States = len(edges)
		if len(next) == 0 {
			for a, n := range taken {
				result.Taken[actions[a].name] = n
			}
			return result
		}
		level = next
		result.Depth++
	}
}

func brokenStep(c *Config, promises []Promise, before, after *State, e edge) string {
	for i := range promises {
		if p := &promises[i]; p.step != nil && !p.step(c, before, after, actions[e.action].name, e.region) {
			return p.Name
		}
	}
	return ""
}

func brokenState(c *Config, promises []Promise, s *State) string {
	for i := range promises {
		if p := &promises[i]; p.state != nil && !p.state(c, s) {
			return p.Name
		}
	}
	return ""
}

// trace walks back from the last edge and plays the steps again from the start.
func trace(c *Config, edges []edge, last int) []string {
	var path []edge
	for i := last; i != 0; i = int(edges[i].from) {
		path = append(path, edges[i])
	}
	var steps []string
	s := start()
	for i := len(path) - 1; i >= 0; i-- {
		e := path[i]
		s, _ = actions[e.action].do(c, s, e.region)
		s.forget(c)
		steps = append(steps, fmt.Sprintf("%-32s %s", e.region.String()+" "+actions[e.action].name, s))
	}
	return steps
}

// forget drops what can make no difference any more, so that states that differ in nothing else are one.
func (s *State) forget(c *Config) {
	for r := range s.nodes {
		n := &s.nodes[r]
		// No operation and no epoch is numbered twice: these plans would be refused for ever.
		if c.Rules.CheckOperation && n.plan.op != s.op || c.Rules.ClaimComparesPen && n.plan.epoch != s.penEpoch {
			n.plan = plan{}
		}
		n.saw = n.saw && s.op != 0 && s.opForced
	}
	if c.Rules.CheckOperation && s.askOp != s.op {
		s.askOp, s.askEpoch = 0, 0
	}
	for e := uint8(1); e < s.penEpoch; e++ {
		h := s.at(e)
		if s.nodes[h.region].epoch == e {
			continue
		}
		// Nobody writes or answers in this epoch any more. Of its tails only what was answered counts, where it was.
		h.past = false
		s.nodes[h.region].kept[e-1] &= h.answered
		s.nodes[h.region.peer()].kept[e-1] = 0
	}
}
