"""The programs the coordinator starts: zygote and m.  Installed as dgmp.workers."""
