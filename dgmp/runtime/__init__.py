"""GMP policy on the M's side: boot (osinit, schedinit, newproc, mstart) and proc (the schedule loop)."""
