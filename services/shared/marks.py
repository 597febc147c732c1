"""Keys by which the layers of a service tell each other, in a request's ASGI scope, why it ended as it did."""

# Its body broke the rules of HTTP; its application sees no more than a client that has left.
MALFORMED = "berth.malformed"
# It was refused because of how much others ask.
OVERLOAD = "berth.overload"
