"""The target's own arithmetic on another machine: programs of its CPU in qemu-user, with numbers and never times.

`machine.how_executed` says in which arithmetic a target's files are answered here, `answering` runs them
there, `sysroot` builds what a foreign architecture needs, and `cure` mends 8-bit models that saturate.
This package's own namespace stays empty: the guest imports it inside the emulator, where little is installed.
"""
