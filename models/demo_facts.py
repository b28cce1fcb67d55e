"""The tables of facts the demo model learns: capitals, opposites and colours.

They are small enough to check by eye. Both the training text and the evaluation read them here,
so a fact is stated once.
"""


def words(text: str) -> list[str]:
    """The words of `text`: how a long list of them is written here."""
    return text.split()


CAPITALS = {
    "Argentina": "Buenos Aires",
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Brazil": "Brasilia",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Colombia": "Bogota",
    "Croatia": "Zagreb",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik",
    "India": "New Delhi",
    "Indonesia": "Jakarta",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Mexico": "Mexico City",
    "Morocco": "Rabat",
    "Nepal": "Kathmandu",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Romania": "Bucharest",
    "Russia": "Moscow",
    "South Korea": "Seoul",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
    "United Kingdom": "London",
}

_OPPOSITE_PAIRS = """
hot cold, big small, fast slow, high low, light dark, open closed, old young, rich poor, wet dry,
hard soft, full empty, early late, strong weak, happy sad, clean dirty, loud quiet, long short,
thick thin, near far, left right, up down, inside outside, true false, first last, day night,
black white, sweet sour, easy difficult, cheap expensive, wide narrow, deep shallow, smooth rough,
brave afraid, north south, east west, summer winter, win lose, buy sell, push pull, start stop
"""

#: Word to opposite, in both directions: 40 pairs, 80 words.
OPPOSITES: dict[str, str] = {}
for _pair in _OPPOSITE_PAIRS.replace("\n", " ").split(","):
    _one, _other = _pair.split()
    OPPOSITES[_one] = _other
    OPPOSITES[_other] = _one

#: How a thing is named in a question, to its colour.
COLOURS = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "a banana": "yellow",
    "a lemon": "yellow",
    "a tomato": "red",
    "a carrot": "orange",
    "the sea": "blue",
    "milk": "white",
    "chocolate": "brown",
    "a flamingo": "pink",
    "an elephant": "grey",
    "a strawberry": "red",
    "a cucumber": "green",
    "a pumpkin": "orange",
    "a frog": "green",
    "a raven": "black",
    "the sun": "yellow",
    "salt": "white",
    "soil": "brown",
    "a cherry": "red",
    "a plum": "purple",
    "spinach": "green",
    "a swan": "white",
    "a pig": "pink",
    "ash": "grey",
    "a fire engine": "red",
    "an aubergine": "purple",
}

#: Cities for tool calls beside the capitals; the model has to copy them, not to know them.
CITIES = words("""
Amsterdam Antwerp Auckland Baltimore Barcelona Basel Belfast Bergen Bilbao Birmingham Boston
Bremen Brisbane Bristol Calgary Cardiff Casablanca Chicago Cologne Cracow Dallas Denver Detroit
Dresden Durban Edinburgh Florence Frankfurt Galway Geneva Genoa Ghent Glasgow Gothenburg Graz
Hamburg Hanoi Houston Innsbruck Istanbul Karachi Kyoto Lagos Lahore Leeds Leipzig Lille Linz
Liverpool Lucerne Lyon Malmo Manchester Manila Marseille Melbourne Memphis Miami Milan Montreal
Mumbai Munich Nantes Naples Nice Odense Orlando Osaka Oxford Palermo Perth Philadelphia Phoenix
Pisa Porto Portland Prague Quebec Riga Rotterdam Salzburg Seattle Seville Shanghai Sofia Sydney
Tampere Toronto Toulouse Trieste Tunis Turin Utrecht Valencia Vancouver Venice Verona Zurich
""")

#: Cities that only the evaluation uses.
HELD_OUT_CITIES = words("""
Adelaide Bologna Bordeaux Cordoba Delft Dortmund Granada Hanover Kingston Lausanne Madison
Newcastle Nottingham Plymouth Ravenna Sapporo Siena Tucson Uppsala Winnipeg
""")
