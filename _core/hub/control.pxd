# What the control plane asks of a worker's hub, and orders: publications over HTTP, subscriptions of a user, what there
# is, and the end of connections. All of it is called from Python; `control.pyi` has the types.
#
# Rules: who asks has been checked by the control plane. What acts on sessions brings the hub's clock up to date first
# and wakes its driver afterwards, so that what was said is written without waiting for input. What is only counted or
# listed changes nothing.

from realtime_communication._core.hub.dispatch cimport Dispatch


cdef class Control(Dispatch):
    pass
