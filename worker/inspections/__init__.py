"""What is checked before anybody may use it: a teacher, a data set, the layer table of an architecture.

Each function takes its order and returns the last word of the child: a result, and `files` in the work folder
for the storage. What is wrong with the upload is a Problem 422. Modules are loaded by name (`worker.child`), so that
a data set is looked at without torch.
"""
