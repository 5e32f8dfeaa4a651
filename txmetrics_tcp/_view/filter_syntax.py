"""
The description of the filter syntax.  In a separate module, so that help texts do not import the
parser.
"""

SYNTAX = """\
Terms are separated by spaces. A series must match all of them:
  word          has the word in its name, or in a label's name or value
  name:text     has the text in its name
  kind:counter  is a counter; also gauge, histogram, or a prefix (kind:c)
  label=value   has the label with this value; * matches any text
  label:        has the label
  /regex/       matches anywhere in "name [label = value, ...]"
  -term, !term  does not match the term
Quotes allow spaces ("two words", label="a b"). A fully quoted term is a
plain word. Case is ignored, except in a regex.
"""
"""The filter syntax, as shown in help texts."""
