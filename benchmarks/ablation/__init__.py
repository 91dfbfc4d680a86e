"""The study of what reblurring brings; `__main__` has the command."""
