"""The repositories of the ports on SQL, one file per aggregate."""
