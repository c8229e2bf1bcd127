"""Networks written with other libraries, as models of this one."""
