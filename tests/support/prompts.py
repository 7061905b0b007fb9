"""Prompts of several kinds; the two long ones pass 512 tokens before the first is written."""

from cadcpp.native.model import Model

_PASSAGE = """The harbour of Wellmouth lies where the river meets a cold grey sea. In the twelfth century it was a row
of huts; by 1640 it had a stone pier, two churches and a market for salt fish every Tuesday. The pier was broken by the
storm of 1703, mended with timber from wrecked ships, and broken again in 1788. After that the town council bought a
dredger and hired Anna Pell, a clockmaker's daughter, to measure the tides. She kept tables for 31 years. From them the
engineers learned that the sandbank moves north by about four metres a year, and that no wall built on it would stand.
They dug a second channel instead, 900 metres long, which opened in 1831 and is still in use. The railway came in 1857.
It brought visitors in summer and took herring to the city in winter, so that for fifty years Wellmouth had more money
than it knew how to spend: a glass-roofed market, a theatre, a library with a reading room for sailors. Then the herring
went away. Between the wars the boatyards built lifeboats, and one of them, the Marigold, saved 112 people in a single
night. Today there are 9,400 inhabitants. Some fish for crab and lobster, some repair the turbines that stand in the
bay, and many work in the hospital on the hill. Each spring the school children walk out on the old pier at low water,
measure how far the bank has moved, and write the number under Anna Pell's last one.
Two miles to the south stands the lighthouse of Crane Point, built in 1798 of granite that came by sea from the north.
Its first keeper, Josiah Wren, lived there with his wife, seven children and a goat, and lit twenty-four oil lamps every
evening for thirty-eight years. A paraffin burner replaced them in 1872, an electric lamp in 1929, and since 1987 nobody
has lived in the tower. It can be visited on Sundays: 161 steps lead up to the lantern, from where on a clear day you
see both the turbines in the bay and the white cliffs on the other side of the water. """

_TALK = "\n".join(
    f"{who}: {line}"
    for who, line in [
        ("Mira", "I counted the hives again this morning and there are only eleven left."),
        ("Tom", "Eleven? We had fourteen in May. Did the storm take three of them?"),
        ("Mira", "Two fell over, and the third is empty. The queen must have left with the swarm."),
        ("Tom", "Then we should write to Mr Okafor. He catches swarms and sells them for thirty pounds."),
        ("Mira", "Thirty pounds is a lot for our own bees. I would rather look in the orchard first."),
        ("Tom", "Fine. I will take the ladder, you take the smoker, and we meet at the pear trees at four."),
        ("Mira", "At five, please. I have to drive my mother to the dentist and the road is closed by the mill."),
        ("Tom", "At five it is. What do we do about the wax moths in the shed?"),
        ("Mira", "Freeze the frames for two days. It kills the eggs and costs nothing."),
        ("Tom", "Our freezer is full of the plums that your aunt sent."),
        ("Mira", "Then make jam. We have forty jars, a sack of sugar and a wet weekend ahead of us."),
        ("Tom", "You always have a plan. Did you hear that the school wants to visit?"),
        ("Mira", "Yes, twenty children on the first of June. We need veils in small sizes and a talk that is short."),
        ("Tom", "I can show them the glass hive. They like to look for the queen with the blue dot."),
        ("Mira", "And honey on bread for everyone, unless somebody is allergic. Ask the teacher for a list."),
        ("Tom", "I will. By the way, the scales under hive seven say that it gained two kilos since Sunday."),
        ("Mira", "That is the lime trees. If the weather holds we can take the first honey in ten days."),
        ("Tom", "The extractor still has the broken handle from last year."),
        ("Mira", "My brother welded it in April. It turns better than when it was new."),
        ("Tom", "Good. Then all we need is sunshine."),
        ("Mira", "And labels. The printer wants to know by Friday whether we change the name on the jars."),
        ("Tom", "I still like Orchard Gold. My sister says that it sounds like a brand of paint."),
        ("Mira", "Your sister is right. What about the name of the hill, Larkrise? It is short and it is true."),
        ("Tom", "Larkrise Honey. Yes. Tell him two hundred labels, and the small ones for the half-pound jars."),
    ]
)

QUESTIONS = {
    "sky": "Explain why the sky is blue in two paragraphs.",
    "code": "Write a Python class for a stack with push, pop and peek, and explain each method.",
    "story": "Tell a long story about a dragon and a baker.",
    "tips": "Give ten tips for learning a new language, with a sentence on each.",
    "summary": f"{_PASSAGE}\n\nRetell the history of Wellmouth in your own words, in order of time.",
    "talk": f"{_TALK}\n\nContinue this conversation for twenty more lines.",
}
PROMPTS = tuple(QUESTIONS)
LONG = ("summary", "talk")


def prompt(model: Model, name: str) -> list[int]:
    """Token ids of one question in SmolLM2's chat format."""
    return model.tokenize(f"<|im_start|>user\n{QUESTIONS[name]}<|im_end|>\n<|im_start|>assistant\n")
