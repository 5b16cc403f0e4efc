package directory

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch is Store.Watch. It goes on at another member, without a gap, when the one it listens to falls silent; while there
// is no majority it waits. With from 0 it asks for the present revision first, so that every change made after Watch has
// returned is delivered; when that fails the channel is closed already.
func (e *Etcd) Watch(ctx context.Context, prefix string, from Revision) <-chan Event {
	events := make(chan Event, watchBuffer)
	if from == 0 {
		answer, err := e.read(ctx, e.prefix+"probe")
		if err != nil {
			close(events)
			return events
		}
		from = Revision(answer.Header.Revision)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	began := e.start(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		defer close(events)
		w := watch{etcd: e, prefix: prefix, done: from, events: events}
		for ctx.Err() == nil && w.listen(ctx, e.order()[0]) {
			pause(ctx, retryPause)
		}
	})
	if !began {
		close(events)
	}
	return events
}

type watch struct {
	etcd   *Etcd
	prefix string
	done   Revision // everything up to here was delivered
	events chan<- Event
}

// listen delivers from one member until that is suspect; it reports false when the watch has to end.
func (w *watch) listen(ctx context.Context, s *site) bool {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	answers := s.client.Watch(ctx, w.etcd.prefix+w.prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(w.done)+1))
	look := time.NewTicker(provenFor / 4)
	defer look.Stop()
	for {
		select {
		case answer, open := <-answers:
			switch {
			case !open:
				return true
			case answer.CompactRevision != 0:
				return false
			case answer.Err() != nil:
				w.etcd.mark(s, false)
				return true
			}
			if !w.deliver(answer.Events) {
				return false
			}
		case <-look.C:
			if w.etcd.dark(s) {
				return true
			}
		case <-ctx.Done():
			return true
		}
	}
}

func (w *watch) deliver(events []*clientv3.Event) bool {
	for _, event := range events {
		out := Event{Item: w.etcd.item(event.Kv), Deleted: event.Type == clientv3.EventTypeDelete}
		select {
		case w.events <- out:
			w.done = out.Item.Revision
		default: // the reader is too far behind
			return false
		}
	}
	return true
}

// dark reports whether there is a better member to listen to than s. When s has not been heard of for a moment it is
// probed: a watch of a stopped process looks like one without events.
func (e *Etcd) dark(s *site) bool {
	e.mu.Lock()
	silent := time.Since(s.proven) > provenFor/2
	suspect := s.suspect
	e.mu.Unlock()
	if silent {
		e.probe(s)
	}
	return suspect && e.order()[0] != s
}
