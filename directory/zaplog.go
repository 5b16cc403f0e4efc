package directory

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// zapToSlog passes etcd's log on. Etcd tells its own story at Info and repeats warnings while a peer is dark: for us both
// are a developer's, only its errors are an operator's.
type zapToSlog struct {
	logger *slog.Logger
	fields []zapcore.Field
}

func (z zapToSlog) level(l zapcore.Level) slog.Level {
	if l >= zapcore.ErrorLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// harmless are errors that etcd logs and that mean nothing: the first before the first snapshot of a new member, the
// second whenever a member leaves (should a listener really fail, Member.Run returns that).
var harmless = map[string]bool{
	"failed to update storage version":              true,
	"setting up serving from embedded etcd failed.": true,
}

// Enabled is zapcore.LevelEnabler. Etcd's debug level is never wanted.
func (z zapToSlog) Enabled(l zapcore.Level) bool {
	return l > zapcore.DebugLevel && z.logger.Enabled(context.Background(), z.level(l))
}

func (z zapToSlog) With(fields []zapcore.Field) zapcore.Core {
	z.fields = append(z.fields[:len(z.fields):len(z.fields)], fields...)
	return z
}

func (z zapToSlog) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(entry.Level) && !harmless[entry.Message] {
		return checked.AddCore(entry, z)
	}
	return checked
}

func (z zapToSlog) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, list := range [][]zapcore.Field{z.fields, fields} {
		for _, field := range list {
			field.AddTo(values)
		}
	}
	z.logger.Log(context.Background(), z.level(entry.Level), "etcd", "said", entry.Message, "with", values.Fields)
	return nil
}

func (z zapToSlog) Sync() error { return nil }
