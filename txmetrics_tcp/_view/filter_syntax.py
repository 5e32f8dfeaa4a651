"""
The language of filters, for help texts, which are shown without loading what understands it.
"""

SYNTAX = """\
Terms are separated by spaces, and all of them must hold:
  word          in the name, or in the name or the value of a label
  name:text     in the name
  kind:counter  of that kind: counter, gauge, histogram, or how it begins (kind:c)
  label=value   has the label, with that value; * stands for anything
  label:        has the label
  /regex/       matches somewhere in what is shown: name [label = value, ...]
  -term, !term  does not hold
Quotes keep spaces together ("two words", label="a b"), and make of anything a
plain word. Upper and lower case are the same, but for a regex.
"""
"""The language of filters, as help texts describe it."""
