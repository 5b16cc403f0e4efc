package model_test
import ("testing";"time";"tandem/sim/model")
func TestZZ(t *testing.T){
 for _,o:=range []model.Opening{model.OpenLater,model.OpenWhole,model.OpenAll}{
 for _,row:=range usual{ for m:=model.Async;m<=model.SyncStrict;m++{
  c:=row.config; c.Mode,c.Rules,c.Opening=m,model.Design(),o
  st:=time.Now()
  r:=model.Search(c,model.Promises,limit)
  t.Logf("%-14s %-20s %-15s %8d %d open %d back %d again %d %v",o,row.name,m,r.States,r.Depth,r.Taken["open"],r.Taken["take the pen back"],r.Taken["claim again"],time.Since(st))
  if r.Broken!=nil {t.Logf("%s",r.Broken)}
 }}}
}
